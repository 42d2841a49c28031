"""A user's own classes, named in a YAML."""
