"""Each table of a report."""
