"""FLOPs and bytes from the configuration alone, in closed form: no torch."""
