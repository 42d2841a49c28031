"""Fit the cost model to measured stages, and say how well it predicts what it has not seen.

Relative robust least squares (scipy): residual = log(predicted / measured) over what is expected of
it (the model's own 3 % and the sample's noise), soft L1, so that one disturbed point does not steer
the rest.  Each parameter has a prior, wide but finite, as one more residual: what a few points
cannot tell stays where it was believed, with that belief's interval, and is marked as not
identified.  Intervals by refits to data and priors redrawn together (randomise, then optimise).
"""

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from bench.calibrate.cost.ceilings import Ceilings
from bench.calibrate.cost.parameters import NAMES, PARAMETERS, PRIOR, RATES, TERMS
from bench.calibrate.cost.seconds import Priced
from bench.calibrate.cost.work import Work
from bench.calibrate.fitting.accuracy import TooFewPoints, constant_rate, leave_groups_out
from bench.calibrate.fitting.optimise import solve
from bench.calibrate.fitting.parameter import spreads

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
        """Did a free parameter stop at an end of its range?"""
        value = float(self.theta[NAMES.index(name)])
        return name not in self.held and PARAMETERS[name].stops(value)

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
    observed = np.array([term.needs in held for term in TERMS])
    free = observed & np.array([name not in fixed for name in NAMES])
    rates = sum(free[NAMES.index(name)] for name in RATES)
    if len(observations) <= rates:
        raise TooFewPoints(
            f"{len(observations)} measured stages for {rates} rates: at least {rates + 1} are"
            " needed"
        )
    priced = Priced([o.work for o in observations], ceilings)
    measured = np.array([o.seconds for o in observations])
    expected = np.hypot(MODEL_ERROR, [o.noise for o in observations])
    base = PRIOR.copy()
    base[[NAMES.index(name) for name in fixed]] = list(fixed.values())

    def unpack(values: np.ndarray) -> np.ndarray:
        theta = base.copy()
        theta[free] = values
        return theta

    found = solve(
        [term for term, is_free in zip(TERMS, free, strict=True) if is_free],
        lambda values: np.log(priced.seconds(unpack(values)) / measured) / expected,
        lambda values: priced.slopes(unpack(values))[:, free] / expected[:, None],
        centre=None if centre is None else centre[free],
        start=None if start is None else start[free],
        linear_beyond=SOFT_L1_SCALE,
    )
    theta = unpack(found.values)
    return FitResult(
        theta=theta,
        observed=observed,
        residuals=np.log(measured / priced.seconds(theta)),
        converged=found.converged,
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
    spread = spreads(TERMS)
    low, high = np.array([[term.low, term.high] for term in TERMS]).T
    unseen = ~fitted.observed & np.array([name not in RATES for name in NAMES])
    out = []
    for _ in range(draws):
        redrawn = predicted * np.exp(rng.choice(residuals, size=n))
        again = [replace(o, seconds=float(s)) for o, s in zip(observations, redrawn, strict=True)]
        centre = np.log(PRIOR) + spread * rng.standard_normal(len(PRIOR))
        theta = fit(again, fitted.ceilings, fixed=fixed, start=fitted.theta, centre=centre).theta
        theta[unseen] = np.clip(np.exp(centre), low, high)[unseen]
        out.append(theta)
    return np.array(out)


def identified(draws: np.ndarray) -> np.ndarray:
    """(p,) bool: do the draws lie clearly closer together than the prior would have them?"""
    return np.log(draws).std(axis=0) < IDENTIFIED * spreads(TERMS)


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
    group: Callable[[int, Observation], Hashable],
    fixed: Mapping[str, float] | None = None,
) -> dict[int, float]:
    """index -> log(measured / predicted) by a fit without any observation of its group."""

    def predict(kept: np.ndarray, out: np.ndarray) -> np.ndarray:
        return _predict(_those(observations, kept), _those(observations, out), ceilings, fixed)

    groups = [group(i, o) for i, o in enumerate(observations)]
    seconds = leave_groups_out(groups, predict)
    return {
        i: float(np.log(o.seconds / s))
        for i, (o, s) in enumerate(zip(observations, seconds, strict=True))
        if np.isfinite(s)
    }


def _those(observations: list[Observation], wanted: np.ndarray) -> list[Observation]:
    return [o for o, is_wanted in zip(observations, wanted, strict=True) if is_wanted]


def _predict(
    seen: list[Observation],
    new: list[Observation],
    ceilings: Ceilings,
    fixed: Mapping[str, float] | None = None,
) -> np.ndarray:
    """(new,) seconds by a fit to the seen ones; nan for work of a class that none of them has.

    Raises TooFewPoints."""
    fitted = fit(seen, ceilings, fixed=fixed)
    known = np.array([fitted.knows(o.work) for o in new])
    return np.where(known, fitted.predict([o.work for o in new]), np.nan)


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
    new = [observations[i] for i in larger]
    try:
        seconds = _predict(rest, new, ceilings) if new else np.empty(0)
    except TooFewPoints:
        return []
    errors = [float(np.log(o.seconds / s)) for o, s in zip(new, seconds, strict=True)]
    return [e for e in errors if np.isfinite(e)]


def constant_mfu_leave_one_out(
    observations: list[Observation], stage: str = "denoise_step"
) -> list[float]:
    """The baseline: one rate for all FLOPs of a stage (the geometric mean), each point predicted
    from the others."""
    rows = [o for o in observations if o.stage == stage]
    if len(rows) < 2:
        return []
    seconds = np.array([o.seconds for o in rows])
    predicted = constant_rate(np.array([o.flops for o in rows]), seconds)
    return [float(e) for e in np.log(seconds / predicted)]
