"""Several ranks that measure one point together."""
