"""What a command does under another option, and the command names of an earlier version."""
