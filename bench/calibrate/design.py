"""Which measurements are worth most: the points that narrow one wanted prediction most for the time
they take.

To first order the log of a prediction moves with the log of each parameter by its sensitivity g,
and a measured stage tells of the parameters by its own sensitivities J, known to the model's error
and the noise.  With the priors' precision P,

    variance of the prediction = g (P + sum J' J / s^2)^-1 g'

Several wanted predictions count by the mean of their variances.

Points are taken greedily, each time the one that lowers that variance most for its seconds, until
the budget is spent (the sum has diminishing returns, so greed stays near the best set; Nemhauser et
al., Math. Programming 14, 1978).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.calibrate.cost.ceilings import Ceilings
from bench.calibrate.cost.parameters import PARAMETERS, RATES, TERMS
from bench.calibrate.cost.seconds import Priced
from bench.calibrate.cost.work import Work
from bench.calibrate.fit import MODEL_ERROR
from bench.calibrate.fitting.parameter import spreads


@dataclass(frozen=True)
class Candidate:
    """A point that could be measured."""

    label: str
    works: tuple[Work, ...]
    """Of its timed stages."""
    cost_s: float
    """Predicted, with what it takes to build it."""


@dataclass(frozen=True)
class Choice:
    """One chosen point, in the order of choosing."""

    index: int
    spent_s: float
    """With all before it."""
    sigma: float
    """Standard deviation of the wanted predictions' logarithms once it is measured."""


def prior_precision() -> np.ndarray:
    """(p, p): how well the parameters are believed to be known before anything is measured."""
    return np.diag(spreads(TERMS) ** -2)


def sigmas_of(wanted: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """(t,) standard deviation of the log of each prediction.  wanted: (t, p) sensitivities."""
    return np.sqrt(np.einsum("tp,pt->t", wanted, np.linalg.solve(precision, wanted.T)))


def sigma_of(wanted: np.ndarray, precision: np.ndarray) -> float:
    """Of one prediction (p,), or the root mean square of several (t, p)."""
    return float(np.sqrt(np.mean(sigmas_of(np.atleast_2d(wanted), precision) ** 2)))


def choose(
    candidates: Sequence[Candidate],
    wanted: Sequence[Work],
    theta: np.ndarray,
    ceilings: Ceilings,
    budget_s: float,
    noise: float = 0.01,
) -> tuple[list[Choice], float]:
    """Greedy choice -> the points in order, and sigma before any.  Each point once; only what still
    fits the budget.

    First what a fit cannot do without: a point for every rate that the wanted work needs and no
    chosen point has."""
    g = Priced(wanted, ceilings).slopes(theta)
    told = [
        Priced(c.works, ceilings).slopes(theta) / np.hypot(MODEL_ERROR, noise) for c in candidates
    ]
    gains = [j.T @ j for j in told]
    classes = [frozenset().union(*(work.classes for work in c.works)) for c in candidates]
    precision, chosen, spent = prior_precision(), [], 0.0
    before = sigma_of(g, precision)
    left, sigma = set(range(len(candidates))), before
    needs = frozenset().union(*(work.classes for work in wanted))
    missing = {PARAMETERS[name].needs for name in RATES} & needs
    while left:
        affordable = [i for i in left if spent + candidates[i].cost_s <= budget_s]
        needed = [i for i in affordable if classes[i] & missing]
        best = max(
            needed or affordable,
            default=None,
            key=lambda i: (
                (sigma**2 - sigma_of(g, precision + gains[i]) ** 2) / candidates[i].cost_s
            ),
        )
        if best is None:
            break
        left.discard(best)
        missing -= classes[best]
        precision = precision + gains[best]
        spent += candidates[best].cost_s
        sigma = sigma_of(g, precision)
        chosen.append(Choice(best, spent, sigma))
    return chosen, before


def at_random(
    candidates: Sequence[Candidate], budget_s: float, rng: np.random.Generator
) -> list[int]:
    """A sweep without a plan at the same budget: points in no particular order, those that still
    fit."""
    picked, spent = [], 0.0
    for i in rng.permutation(len(candidates)):
        if spent + candidates[i].cost_s <= budget_s:
            picked.append(int(i))
            spent += candidates[i].cost_s
    return picked
