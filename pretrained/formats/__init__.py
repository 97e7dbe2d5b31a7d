"""A weight file of any kind -> {name: array}, without the framework that wrote it. One file a format."""
