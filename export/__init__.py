"""From a run folder to files that others can run."""
