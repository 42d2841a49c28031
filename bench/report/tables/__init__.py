"""The tables of reports and commands: a file for each subject; table.py has the type."""
