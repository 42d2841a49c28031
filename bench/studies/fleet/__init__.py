"""From demand to GPUs: how many, at what cost, and what moves the answer most."""
