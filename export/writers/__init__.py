"""A trained network as a model file, one format a module, and what is built into the files."""
