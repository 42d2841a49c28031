"""The text encoders' stand-in."""
