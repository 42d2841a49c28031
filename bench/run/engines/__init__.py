"""Where a suite is measured other than here: on Ray, by Slurm."""
