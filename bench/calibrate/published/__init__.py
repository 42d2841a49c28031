"""Latencies that others published: their table read, and the cost of whole videos fitted to it."""
