"""The commands, a file each: parse, call, print.  `bench/cli.py` names them in the order of
--help; `parts/` has what a command does under another option, and the names of an earlier version.
"""
