"""What every cost model is made of: a positive number, its bounds and its prior."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NEAR = 1e-3  # relative distance from a bound that counts as on it


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A positive number of a cost model, and what is believed of it before anything is measured."""

    unit: str
    low: float
    high: float
    prior: float
    spread: float
    """Standard deviation of the natural logarithm: 0.5 is a factor of 1.6, 1.5 one of 4.5."""

    def stops(self, value: float) -> bool:
        """Does the value lie at an end of the range?"""
        return value <= self.low * (1 + NEAR) or value >= self.high * (1 - NEAR)


def log_priors(parameters: Sequence[Parameter]) -> np.ndarray:
    """(p,) logarithms of the priors."""
    return np.log([p.prior for p in parameters])


def spreads(parameters: Sequence[Parameter]) -> np.ndarray:
    """(p,) standard deviations of the logarithms."""
    return np.array([p.spread for p in parameters])
