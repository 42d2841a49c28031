"""Where a stage's time goes, by module and by operator."""
