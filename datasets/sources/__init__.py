"""Published data sets, one a module: its SOURCE record, load(), and holds() where there are files."""
