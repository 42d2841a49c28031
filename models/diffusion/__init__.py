"""Noise paths, samplers, and the loop over steps."""
