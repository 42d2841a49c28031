"""Fit the cost model to measured stages, and say how well it predicts what it has not seen.

Relative robust least squares (scipy): residual = log(predicted / measured) over what is expected of
it (the model's own 3 % and the sample's noise), soft L1, so that one disturbed point does not steer
the rest.  Each parameter has a prior, wide but finite, as one more residual: what a few points
cannot tell stays where it was believed, with that belief's interval, and is marked as not
identified.  Intervals by refits to data and priors redrawn together (randomise, then optimise).
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.optimize import least_squares

from bench.calibrate.cost_model import NAMES, PARAMETERS, PRIOR, RATES, Ceilings, Priced, Work

DRAWS = 100
MODEL_ERROR = 0.03  # relative, of the cost model itself; noise comes on top
SOFT_L1_SCALE = 3.0  # residuals of so many expected errors count linearly
IDENTIFIED = 0.7  # an interval this much narrower than the prior's says that the data told


@dataclass(frozen=True)
class Observation:
    """One measured stage."""

    point: str
    """Label of its point."""
    stage: str
    work: Work
    seconds: float
    flops: int
    noise: float = 0.0
    """Relative half-width of the median's interval."""
    tokens: int = 0


@dataclass(frozen=True)
class FitResult:
    """Parameters, and how far each observation lies from them."""

    theta: np.ndarray
    """(p,) in the order of NAMES; what nothing told lies at its prior."""
    observed: np.ndarray
    """(p,) bool: some observation has work that needs it."""
    residuals: np.ndarray
    """(n,) log(measured / predicted)."""
    converged: bool
    ceilings: Ceilings
    held: Mapping[str, float] = field(default_factory=dict)
    """Parameters that were not free, at these values."""

    def at_bound(self, name: str) -> bool:
        value, meaning = self.theta[NAMES.index(name)], PARAMETERS[name]
        return name not in self.held and bool(
            value <= meaning.low * 1.001 or value >= meaning.high * 0.999
        )

    def predict(self, works: Iterable[Work]) -> np.ndarray:
        """Seconds."""
        return Priced(works, self.ceilings).seconds(self.theta)

    def knows(self, work: Work) -> bool:
        """Was every class of its work measured?"""
        return all(
            self.observed[NAMES.index(name)]
            for name in RATES
            if PARAMETERS[name].needs in work.classes
        )


class TooFewPoints(ValueError):
    """Fewer observations than rates to fit, none at all, or all of one size."""


def fit(
    observations: list[Observation],
    ceilings: Ceilings,
    *,
    fixed: Mapping[str, float] | None = None,
    start: np.ndarray | None = None,
    centre: np.ndarray | None = None,
) -> FitResult:
    """fixed: parameters that are not free.  centre: log of the priors' middles, where they are
    redrawn.

    Raises TooFewPoints where there are not more observations than rates to fit."""
    if not observations:
        raise TooFewPoints("no measured stage")
    fixed = fixed or {}
    held = set().union(*(o.work.classes for o in observations))
    observed = np.array([m.needs in held for m in PARAMETERS.values()])
    free = observed & np.array([name not in fixed for name in NAMES])
    rates = sum(free[NAMES.index(name)] for name in RATES)
    if len(observations) <= rates:
        raise TooFewPoints(
            f"{len(observations)} measured stages for {rates} rates: at least {rates + 1} are"
            " needed"
        )
    priced, t = (
        Priced([o.work for o in observations], ceilings),
        np.array([o.seconds for o in observations]),
    )
    expected = np.hypot(MODEL_ERROR, [o.noise for o in observations])
    base = PRIOR.copy()
    base[[NAMES.index(name) for name in fixed]] = list(fixed.values())
    bounds = np.log([[m.low, m.high] for m in PARAMETERS.values()])[free].T
    middle = (np.log(PRIOR) if centre is None else centre)[free]
    spread = np.array([m.spread for m in PARAMETERS.values()])[free]
    guess = np.clip(
        middle if start is None else np.log(start)[free], bounds[0] + 1e-6, bounds[1] - 1e-6
    )

    def unpack(x: np.ndarray) -> np.ndarray:
        theta = base.copy()
        theta[free] = np.exp(x)
        return theta

    def residuals(x: np.ndarray) -> np.ndarray:
        return np.concatenate(
            [np.log(priced.seconds(unpack(x)) / t) / expected, (x - middle) / spread]
        )

    result = least_squares(
        residuals, guess, bounds=bounds, loss="soft_l1", f_scale=SOFT_L1_SCALE, x_scale=1.0
    )
    theta = unpack(result.x)
    return FitResult(
        theta=theta,
        observed=observed,
        residuals=np.log(t / priced.seconds(theta)),
        converged=result.status > 0,
        ceilings=ceilings,
        held={name: float(base[i]) for i, name in enumerate(NAMES) if not free[i]},
    )


def bootstrap(
    observations: list[Observation], fitted: FitResult, seed: int = 0, draws: int = DRAWS
) -> np.ndarray:
    """(draws, p) parameters refitted to data redrawn from the fit's residuals, inflated for the
    parameters spent, and to priors redrawn from themselves."""
    rng = np.random.default_rng(seed)
    n, p = len(observations), min(int(fitted.observed.sum()), len(observations) - 1)
    residuals = (fitted.residuals - fitted.residuals.mean()) * np.sqrt(n / (n - min(p, n // 2)))
    predicted = np.array([o.seconds for o in observations]) * np.exp(-fitted.residuals)
    fixed = {
        name: value for name, value in fitted.held.items() if fitted.observed[NAMES.index(name)]
    }
    spread = np.array([m.spread for m in PARAMETERS.values()])
    out = []
    for _ in range(draws):
        redrawn = predicted * np.exp(rng.choice(residuals, size=n))
        again = [replace(o, seconds=float(s)) for o, s in zip(observations, redrawn, strict=True)]
        centre = np.log(PRIOR) + spread * rng.standard_normal(len(PRIOR))
        theta = fit(again, fitted.ceilings, fixed=fixed, start=fitted.theta, centre=centre).theta
        unseen = ~fitted.observed & np.array([name not in RATES for name in NAMES])
        theta[unseen] = np.exp(
            np.clip(centre, *np.log([[m.low, m.high] for m in PARAMETERS.values()]).T)
        )[unseen]
        out.append(theta)
    return np.array(out)


def identified(draws: np.ndarray) -> np.ndarray:
    """(p,) bool: do the draws lie clearly closer together than the prior would have them?"""
    return np.log(draws).std(axis=0) < IDENTIFIED * np.array(
        [m.spread for m in PARAMETERS.values()]
    )


def leave_one_out(
    observations: list[Observation], ceilings: Ceilings, fixed: Mapping[str, float] | None = None
) -> dict[int, float]:
    """index -> log(measured / predicted) by a fit without that observation; left out where nothing
    else has its work."""
    return leave_out(observations, ceilings, lambda i, o: i, fixed)


def leave_a_size_out(
    observations: list[Observation], ceilings: Ceilings, stage: str = "denoise_step"
) -> dict[int, float]:
    """The same without every observation of its number of tokens: nothing of that size was seen.
    Of one stage."""
    errors = leave_out(observations, ceilings, lambda i, o: o.tokens)
    return {i: e for i, e in errors.items() if observations[i].stage == stage}


def leave_out(
    observations: list[Observation],
    ceilings: Ceilings,
    group: Callable[[int, Observation], object],
    fixed: Mapping[str, float] | None = None,
) -> dict[int, float]:
    """index -> log(measured / predicted) by a fit without any observation of its group."""
    members: dict[object, list[int]] = defaultdict(list)
    for i, o in enumerate(observations):
        members[group(i, o)].append(i)
    errors = {}
    for out in members.values():
        rest = [o for i, o in enumerate(observations) if i not in out]
        try:
            fitted = fit(rest, ceilings, fixed=fixed)
        except TooFewPoints:
            continue
        errors.update(_errors(fitted, observations, out))
    return dict(sorted(errors.items()))


def upward(
    observations: list[Observation], ceilings: Ceilings, stage: str = "denoise_step"
) -> list[float]:
    """log(measured / predicted) of the larger half of a stage by FLOPs, fitted on everything that
    is not in it.

    Empty where the smaller half cannot bear the fit."""
    steps = sorted(
        (i for i, o in enumerate(observations) if o.stage == stage),
        key=lambda i: observations[i].flops,
    )
    larger = steps[(len(steps) + 1) // 2 :]
    rest = [
        o
        for i, o in enumerate(observations)
        if i not in larger and (not larger or o.flops <= observations[larger[0]].flops)
    ]
    try:
        fitted = fit(rest, ceilings)
    except TooFewPoints:
        return []
    return list(_errors(fitted, observations, larger).values())


def _errors(
    fitted: FitResult, observations: list[Observation], held_out: list[int]
) -> dict[int, float]:
    known = [i for i in held_out if fitted.knows(observations[i].work)]
    if not known:
        return {}
    predicted = fitted.predict([observations[i].work for i in known])
    return {
        i: float(np.log(observations[i].seconds / s)) for i, s in zip(known, predicted, strict=True)
    }


def constant_mfu_leave_one_out(
    observations: list[Observation], stage: str = "denoise_step"
) -> list[float]:
    """The baseline: one rate for all FLOPs of a stage (the geometric mean), each point predicted
    from the others."""
    rates = np.log([o.flops / o.seconds for o in observations if o.stage == stage])
    if len(rates) < 2:
        return []
    others = (rates.sum() - rates) / (len(rates) - 1)
    return [float(e) for e in others - rates]


def error_summary(log_errors: Iterable[float]) -> dict[str, float | int] | None:
    """Mean, median and worst |predicted / measured - 1| and how many; None without any."""
    errors = [abs(float(np.exp(-e)) - 1) for e in log_errors]
    if not errors:
        return None
    return {
        "mean": sum(errors) / len(errors),
        "median": float(np.median(errors)),
        "worst": max(errors),
        "n": len(errors),
    }
