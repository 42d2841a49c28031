"""One model on several ranks, counted: FLOPs and bytes sent, on a laptop and at any world size."""
