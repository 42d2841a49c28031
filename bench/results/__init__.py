"""What was measured, as records on disk."""
