"""Published claims: our figure, theirs, a verdict."""
