"""What every fit shares: parameters with priors, one optimiser, held-out errors."""
