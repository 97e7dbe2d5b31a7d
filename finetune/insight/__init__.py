"""What the cached features say of the data and of the number: folds, labels, curve, failures, novelty."""
