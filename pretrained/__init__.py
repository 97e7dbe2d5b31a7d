"""A backbone, and the facts of its weights."""
