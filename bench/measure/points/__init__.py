"""One point: build it, count it, time its stages; alone, in turns, beside a baseline."""
