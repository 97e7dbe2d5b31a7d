"""The layers of networks from scratch, beyond those of MindSpore."""
