"""The figures of a report: a file for each subject; registry.py lists them."""
