"""Many processes that share one training: how they are started, which rows each takes, and how their gradients meet."""
