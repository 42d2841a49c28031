"""The most probable effects of observations, and the scatters under which they are most
probable."""

from dataclasses import dataclass
from math import log

import numpy as np
from scipy.optimize import minimize

from bench.calibrate.evidence.effects import USUAL, Scatter, design, expected, observed
from bench.calibrate.evidence.observation import Columns
from bench.calibrate.evidence.posterior import FREEDOM, Posterior
from bench.calibrate.fitting.optimise import solve
from bench.calibrate.fitting.parameter import Parameter

FARTHEST = 5.0  # spreads that an effect may lie from 0
TURNS = 4  # of noise and weights; the fifth changes the third digit of a weight
BELIEF = 0.5  # standard deviation of the logarithm of a scatter about the usual one
EVALUATIONS = 400  # of the evidence while scatters are searched; the last ones change 1 %


@dataclass(frozen=True)
class Fit:
    """What observations say, and how probable they are under the scatters."""

    posterior: Posterior
    log_evidence: float
    """log p(observations | scatter), by Laplace's approximation, up to a constant."""


def fit(
    columns: Columns, seconds: np.ndarray, scatter: Scatter, start: np.ndarray | None = None
) -> Fit:
    """Fit effects to observations.  seconds: (n,) measured.  start: (p,) effects to begin at."""
    effects = observed(columns, scatter)
    placed, prior = design(effects, columns), expected(columns)
    spreads = np.array([effect.spread for effect in effects])
    measured, noise = np.log(seconds), scatter.noise * columns.noise
    weighted = noise
    mean = np.zeros(len(effects)) if start is None else start
    for _ in range(TURNS):
        mean = _most_probable(placed, prior, measured, weighted, spreads, mean)
        logs, _, slopes = placed.log_seconds(prior, mean)
        misfit = (logs - measured) / noise
        weighted = noise * np.sqrt((FREEDOM + misfit**2) / (FREEDOM + 1))
    precision = (slopes / weighted[:, None]).T @ (slopes / weighted[:, None])
    precision += np.diag(spreads**-2.0)
    likelihood = -(FREEDOM + 1) / 2 * np.log1p(misfit**2 / FREEDOM) - np.log(noise)
    beliefs = -((mean / spreads) ** 2) / 2 - np.log(spreads)
    curvature = np.linalg.slogdet(precision)[1]
    return Fit(
        Posterior(scatter, tuple(effects), mean, np.linalg.inv(precision)),
        float(likelihood.sum() + beliefs.sum() - curvature / 2),
    )


def _most_probable(placed, prior, measured, noise, spreads, start) -> np.ndarray:
    """(p,) effects under which misfits over noise and effects over spreads are least squares."""
    parameters = [
        Parameter(
            unit="ratio",
            low=float(np.exp(-FARTHEST * s)),
            high=float(np.exp(FARTHEST * s)),
            prior=1.0,
            spread=float(s),
        )
        for s in spreads
    ]

    def misfits(values: np.ndarray) -> np.ndarray:
        return (placed.log_seconds(prior, np.log(values))[0] - measured) / noise

    def slopes(values: np.ndarray) -> np.ndarray:
        return placed.log_seconds(prior, np.log(values))[2] / noise[:, None]

    return np.log(solve(parameters, misfits, slopes, start=np.exp(start)).values)


def fit_scatter(columns: Columns, seconds: np.ndarray, start: Scatter = USUAL) -> Scatter:
    """The scatters under which the observations are most probable, near the usual ones.

    Nelder and Mead's simplex: nine numbers, and an evidence whose slopes are not worth their
    code."""
    names = list(Scatter.model_fields)
    usual = np.log([getattr(USUAL, name) for name in names])
    at: list[np.ndarray | None] = [None]

    def improbability(logs: np.ndarray) -> float:
        scatter = Scatter(**dict(zip(names, np.exp(logs).tolist(), strict=True)))
        found = fit(columns, seconds, scatter, at[0])
        at[0] = found.posterior.mean
        return -found.log_evidence + float((((logs - usual) / BELIEF) ** 2).sum() / 2)

    found = minimize(
        improbability,
        [log(getattr(start, name)) for name in names],
        method="Nelder-Mead",
        options={"maxfev": EVALUATIONS, "xatol": 0.03, "fatol": 0.02},
    )
    return Scatter(**dict(zip(names, np.round(np.exp(found.x), 4).tolist(), strict=True)))
