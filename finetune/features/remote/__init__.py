"""The features of a job on other machines: the workers, and who hands them their work."""
