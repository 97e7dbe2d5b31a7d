"""The same job in other people's tools, one file each; each runs in a process of its own."""
