"""Which attention kernel is asked for, which one ran, and whether it was right."""
