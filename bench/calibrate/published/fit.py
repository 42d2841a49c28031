"""Fit the cost of whole videos, with as many free parameters as the table bears and a factor for
each model.

    log measured = log seconds(parameters) + factor of the row's model + noise

A table seldom says how each model was run, and everything that it leaves out (kernels, compilation,
fp8, offloading) is common to that model's rows.  So a model has a factor of its own, drawn from
N(0, tau^2): shrunk towards none by how few rows it has, none at all where each model has one row
(Henderson's mixed model; Rasmussen & Williams 2006, section 2.7).

Which parameters are free, tau and the noise are those under which the table is most probable: the
marginal likelihood, with parameters and factors integrated out by Laplace's approximation (MacKay
1992).  A parameter that the rows do not tell makes the table less probable, so it is held.  From
four starts (one rate for everything, which is constant utilisation; one rate for all products; the
linear rate alone; linear and attention rate), each with and without factors, one more parameter at
a time is freed while that makes the table more probable; never more than half the rows (rounded
up), nor than different rows less one, nor one that drives a parameter into its bound.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.calibrate.fitting.optimise import solve
from bench.calibrate.fitting.parameter import log_priors, spreads
from bench.calibrate.published.model import PublishedModel

DRAWS = 200
NOISES = np.geomspace(0.004, 0.5, 13)  # of log seconds; tables print three digits
SPREADS = (0.03, 0.06, 0.12, 0.25, 0.5)  # tau, where models differ at all
USUAL_NOISE, USUAL_SPREAD = (0.05, 1.2), (0.15, 1.0)
"""Before the table is seen: centre, and standard deviation of the logarithm."""


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A value for every parameter, which of them were free, and how far rows and models scatter
    about them."""

    theta: np.ndarray
    free: tuple[int, ...]
    noise: float
    """Standard deviation of log seconds within a model."""
    tau: float
    """Standard deviation of the models' log factors; 0: the models do not differ."""
    factors: dict[str, float]
    """Log factor of each model of the table; 0 for others."""
    log_evidence: float
    converged: bool


def predict(
    model: PublishedModel, fitted: Fitted, x: np.ndarray, models: Sequence[str]
) -> np.ndarray:
    """(n,) seconds: x (n, 8), each row with its model's factor."""
    return model.seconds(x, fitted.theta) * np.exp(
        [fitted.factors.get(name, 0.0) for name in models]
    )


def select(model: PublishedModel, x: np.ndarray, t: np.ndarray, models: Sequence[str]) -> Fitted:
    """The most probable of what the module describes."""
    most = max(1, min((len(t) + 1) // 2, len(np.unique(np.round(x, 9), axis=0)) - 1))
    repeated = 1 < len(set(models)) < len(t)
    ends = [
        _forward(model, x, t, models, free, held, with_factors, most)
        for with_factors in (False, True)[: 1 + repeated]
        for free, held in (
            ((0,), model.one_rate),
            ((0,), model.one_product_rate),
            ((0,), model.held),
            ((0, 1), model.held),
        )
        if len(free) <= most
    ]
    return max(ends, key=lambda f: (not any(at_bound(model, f, i) for i in f.free), f.log_evidence))


def at_bound(model: PublishedModel, fitted: Fitted, i: int) -> bool:
    """Did a free parameter stop at an end of its range?"""
    return i in fitted.free and model.parameters[i].stops(float(fitted.theta[i]))


def _forward(
    model: PublishedModel,
    x: np.ndarray,
    t: np.ndarray,
    models: Sequence[str],
    free: tuple[int, ...],
    held: np.ndarray,
    with_factors: bool,
    most: int,
) -> Fitted:
    best = fit(model, x, t, models, free, held, with_factors)
    while len(best.free) < most:
        further = [
            fit(model, x, t, models, (*best.free, i), held, with_factors, best)
            for i in model.shown_by(x, best.free, held)
        ]
        better = max(
            (f for f in further if not any(at_bound(model, f, i) for i in f.free)),
            key=lambda f: f.log_evidence,
            default=best,
        )
        if better.log_evidence <= best.log_evidence:
            break
        best = better
    return best


def fit(
    model: PublishedModel,
    x: np.ndarray,
    t: np.ndarray,
    models: Sequence[str],
    free: Sequence[int],
    held: np.ndarray,
    with_factors: bool,
    before: Fitted | None = None,
) -> Fitted:
    """The most probable values of given free parameters; noise and tau from a grid, in turns with
    the parameters.

    before: a fit without the last of the free ones, to start from."""
    shared, start = _shared(models), None
    noise, tau = (before.noise, before.tau) if before else (0.08, 0.15 if with_factors else 0.0)
    if before:
        start = np.append(before.theta[list(before.free)], model.parameters[free[-1]].prior)
    for _ in range(4):
        covariance = noise**2 * np.eye(len(t)) + tau**2 * shared
        theta, converged = _solve(model, x, t, free, held, covariance, start=start)
        start = theta[list(free)]
        log_evidence, *scatter = _likeliest_scatter(model, x, t, free, theta, shared, with_factors)
        if (noise, tau) == tuple(scatter):
            break
        noise, tau = scatter
    residuals = np.log(t / model.seconds(x, theta))
    factors = (
        tau**2 * shared @ np.linalg.solve(noise**2 * np.eye(len(t)) + tau**2 * shared, residuals)
    )
    return Fitted(
        theta=theta,
        free=tuple(free),
        noise=float(noise),
        tau=float(tau),
        log_evidence=float(log_evidence),
        factors={name: float(f) for name, f in zip(models, factors, strict=True)}
        if with_factors
        else {},
        converged=converged,
    )


def draws(
    model: PublishedModel,
    x: np.ndarray,
    t: np.ndarray,
    models: Sequence[str],
    fitted: Fitted,
    seed: int = 0,
) -> np.ndarray:
    """(DRAWS, 8): refits to the table with its scatter drawn again, what was thought before drawn
    as well, and the held ones from what is possible for them (randomised maximum a posteriori:
    Bardsley et al. 2014)."""
    rng = np.random.default_rng(seed)
    free = list(fitted.free)
    covariance = fitted.noise**2 * np.eye(len(t)) + fitted.tau**2 * _shared(models)
    possible = np.array([p.possible for p in model.parameters])
    freed = [model.parameters[i] for i in free]
    scatter = rng.multivariate_normal(np.zeros(len(t)), covariance, size=DRAWS, method="cholesky")
    out = []
    for moved in scatter:
        held = np.where(
            fitted.theta == model.held, rng.uniform(possible[:, 0], possible[:, 1]), fitted.theta
        )
        theta, _ = _solve(
            model,
            x,
            t * np.exp(moved),
            free,
            held,
            covariance,
            start=fitted.theta[free],
            centre=log_priors(freed) + rng.normal(0, spreads(freed)),
        )
        out.append(theta)
    return np.array(out)


def _shared(models: Sequence[str]) -> np.ndarray:
    """(n, n): 1 where two rows are of one model."""
    names = np.array(models)
    return (names[:, None] == names[None]).astype(float)


def _solve(
    model: PublishedModel,
    x: np.ndarray,
    t: np.ndarray,
    free: Sequence[int],
    held: np.ndarray,
    covariance: np.ndarray,
    start: np.ndarray | None,
    centre: np.ndarray | None = None,
) -> tuple[np.ndarray, bool]:
    """Fit the free parameters to rows that scatter by a covariance -> (theta, converged).

    start, centre: as bench.calibrate.fitting.optimise.solve takes them."""
    whiten = np.linalg.inv(np.linalg.cholesky(covariance))

    def unpack(values: np.ndarray) -> np.ndarray:
        theta = held.copy()
        theta[list(free)] = values
        return theta

    found = solve(
        [model.parameters[i] for i in free],
        lambda values: whiten @ np.log(model.seconds(x, unpack(values)) / t),
        lambda values: whiten @ model.slopes(x, unpack(values), free),
        start=start,
        centre=centre,
    )
    return unpack(found.values), found.converged


def _likeliest_scatter(
    model: PublishedModel,
    x: np.ndarray,
    t: np.ndarray,
    free: Sequence[int],
    theta: np.ndarray,
    shared: np.ndarray,
    with_factors: bool,
) -> tuple[float, float, float]:
    """(log evidence, noise, tau): log N(table; what was thought, covariance of scatter and of
    thoughts), the model made linear at theta; the best of the grid, a usual scatter thought
    likelier."""
    slopes = model.slopes(x, theta, free)
    freed = [model.parameters[i] for i in free]
    moved = np.log(theta[list(free)]) - log_priors(freed)
    y = np.log(t / model.seconds(x, theta)) + slopes @ moved
    of_thoughts = slopes * spreads(freed) ** 2 @ slopes.T
    found = []
    for tau in SPREADS if with_factors else (0.0,):
        values, vectors = np.linalg.eigh(of_thoughts + tau**2 * shared)  # once for all noises
        variances = np.maximum(values, 0.0) + NOISES[:, None] ** 2
        logs = (
            -(np.log(variances) + (y @ vectors) ** 2 / variances).sum(axis=1) / 2
            + _usual(NOISES, *USUAL_NOISE)
            + (_usual(tau, *USUAL_SPREAD) if tau else 0.0)
        )
        found.append((float(logs.max()), float(NOISES[logs.argmax()]), tau))
    return max(found)


def _usual(value: np.ndarray | float, centre: float, width: float) -> np.ndarray:
    return -((np.log(value / centre) / width) ** 2) / 2
