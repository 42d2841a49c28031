"""Can a result be believed?  Every figure that follows from others is made again."""
