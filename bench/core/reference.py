"""The point that the published estimates are about: a minute of 512x512 video by a 20 B model."""

MODEL = "sora-20b"
WORKLOAD = "sora-1min-512"
