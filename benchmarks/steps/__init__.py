"""A training step of the last blocks, and of the whole network, beside PyTorch's."""
