"""The feature store: rows by the content of pictures, in files that survive kills, damage and each other."""
