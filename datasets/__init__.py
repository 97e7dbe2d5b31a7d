"""What a picture is, which pictures, and which split they belong to."""
