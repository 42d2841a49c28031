"""The point that the published estimates are about: a minute of 512x512 video by a 20 B model."""

MODEL = "sora-20b"
WORKLOAD = "sora-1min-512"
SOURCE = "https://www.factorialfunds.com/blog/under-the-hood-how-openai-s-sora-model-works"
"""The analysis whose rows A1 to A17 are."""
