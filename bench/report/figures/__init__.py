"""Each figure of a report."""
