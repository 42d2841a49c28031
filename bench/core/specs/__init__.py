"""What a user writes in YAML, as validated data: no torch."""
