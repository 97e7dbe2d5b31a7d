"""The embedded sample set: cats and dogs that the project draws itself."""
