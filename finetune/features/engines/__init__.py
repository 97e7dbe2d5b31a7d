"""Who computes the features of a frozen backbone: one small interface, one file an engine."""
