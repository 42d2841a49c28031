"""What a trajectory computes anew and what it reuses."""
