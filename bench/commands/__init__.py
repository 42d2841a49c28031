"""The commands, a file for each idea: parse, call, print.  `bench/cli.py` names them in the order
of --help."""
