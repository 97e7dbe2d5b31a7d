"""Device, features, head, training, evaluation, report."""
