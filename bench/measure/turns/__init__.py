"""One stage of two checkouts of the code, each in a process of its own, timed in turns."""
