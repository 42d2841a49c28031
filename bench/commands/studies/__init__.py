"""Commands of the studies beside the main way."""
