"""What a user names on the command line: Python classes, real weights."""
