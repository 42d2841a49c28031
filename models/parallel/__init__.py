"""One model on several ranks: the axes it is cut along, and who holds which tokens and weights."""
