"""The one optimiser: positive parameters with bounds and priors, fitted to relative misfits.

Both cost models are fitted here: the one by operator (bench.calibrate.fit) and the one of whole
videos (bench.calibrate.published.fit).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from bench.calibrate.fitting.parameter import Parameter, log_priors, spreads

INSIDE = 1e-6  # of the logarithm: scipy wants a start that is strictly inside the bounds
TOLERANCE = 1e-8


@dataclass(frozen=True)
class Solution:
    """The parameters under which misfits and priors together are least."""

    values: np.ndarray
    """(p,)"""
    converged: bool


def solve(
    parameters: Sequence[Parameter],
    misfits: Callable[[np.ndarray], np.ndarray],
    slopes: Callable[[np.ndarray], np.ndarray],
    *,
    centre: np.ndarray | None = None,
    start: np.ndarray | None = None,
    linear_beyond: float | None = None,
) -> Solution:
    """Find the values at which the squares of misfits and priors are least.

    misfits: values (p,) -> (n,) log(predicted / measured) over what is expected of it.  slopes:
    values (p,) -> (n, p) of a misfit by the logarithm of a parameter.  centre: (p,) log of the
    priors' middles, where they are redrawn.  start: (p,) values, by default the centre's.
    linear_beyond: misfits of so many expected errors count linearly (soft L1)."""
    low, high = np.log([[p.low, p.high] for p in parameters]).T
    middle = log_priors(parameters) if centre is None else centre
    spread = spreads(parameters)
    guess = middle if start is None else np.log(start)

    def residuals(logs: np.ndarray) -> np.ndarray:
        return np.concatenate([misfits(np.exp(logs)), (logs - middle) / spread])

    def jacobian(logs: np.ndarray) -> np.ndarray:
        return np.vstack([slopes(np.exp(logs)), np.diag(1.0 / spread)])

    found = least_squares(
        residuals,
        np.clip(guess, low + INSIDE, high - INSIDE),
        jac=jacobian,
        bounds=(low, high),
        method="dogbox",
        loss="linear" if linear_beyond is None else "soft_l1",
        f_scale=linear_beyond or 1.0,
        ftol=TOLERANCE,
        xtol=TOLERANCE,
        gtol=TOLERANCE,
    )
    return Solution(np.exp(found.x), found.status > 0)
