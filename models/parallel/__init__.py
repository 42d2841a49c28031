"""One model on several ranks: which axes there are, and how tokens, heads and weights are spread."""
