"""Seconds of a call: the clock, when to stop, what the launch costs."""
