"""The auto-regressive video transformer."""
