"""A profile as tables, a figure and a page."""
