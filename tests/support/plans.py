"""How long a point is timed, where a test does not ask for more."""

from bench.core.specs.suite import Sampling

PLAN = Sampling(target_relative_half_width=0.02, min_samples=7, max_samples=200, max_s=10.0)
