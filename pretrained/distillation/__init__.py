"""How the embedded backbone was made."""
