"""From the bytes of a file to an upright picture in RGB: formats, limits, what values mean, repairs."""
