"""The cost model by operator."""
