"""What grows with the number of pictures, and how."""
