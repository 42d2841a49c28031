"""One model on several cards, from published latencies."""
