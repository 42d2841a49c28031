"""Fit the cost model to measured stages, and say how well it predicts what it has not seen.

Relative robust least squares (scipy): residual = log(predicted / measured), soft L1, so that one disturbed point does
not steer the rest.  Intervals by residual bootstrap, since the points are few and chosen, not drawn.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from bench.calibrate.cost_model import BOUNDS, PARAMETERS, seconds

DRAWS = 200
SOFT_L1_SCALE = 0.1       # residuals of 10 % and more count linearly

@dataclass(frozen=True)
class Observation:
    """One measured stage."""

    point: str
    """Label of its point."""
    stage: str
    x: np.ndarray
    """(5,) from cost_model.features."""
    seconds: float
    flops: int


@dataclass(frozen=True)
class FitResult:
    """Parameters, and how far each observation lies from them."""

    theta: np.ndarray
    """(5,); unobserved parameters hold 1 and are marked."""
    observed: np.ndarray
    """(5,) bool: some observation has work of this class."""
    residuals: np.ndarray
    """(n,) log(measured / predicted)."""
    converged: bool

    def at_bound(self, index: int) -> bool:
        low, high = BOUNDS[PARAMETERS[index]]
        value = self.theta[index]
        return bool(value <= low * 1.001 or value >= high * 0.999)


class TooFewPoints(ValueError):
    """Fewer observations than parameters to fit, or none of a class."""


def fit(observations: list[Observation], start: np.ndarray | None = None) -> FitResult:
    """Raises TooFewPoints where there are not more observations than parameters."""
    x, t = _arrays(observations)
    observed = x.any(axis=0)
    if len(t) <= observed.sum():
        raise TooFewPoints(f"{len(t)} measured stages for {observed.sum()} parameters: at least "
                           f"{observed.sum() + 1} are needed")
    bounds = np.log(np.array([BOUNDS[name] for name in PARAMETERS]))[observed].T
    guess = np.log(start if start is not None else np.array([0.7, 0.7, 0.7, 0.7, 5e-6]))[observed]
    guess = np.clip(guess, bounds[0] + 1e-6, bounds[1] - 1e-6)

    def unpack(free: np.ndarray) -> np.ndarray:
        theta = np.ones(len(PARAMETERS))
        theta[observed] = np.exp(free)
        return theta

    result = least_squares(lambda free: np.log(seconds(x, unpack(free)) / t), guess, bounds=bounds, loss="soft_l1",
                           f_scale=SOFT_L1_SCALE, x_scale=1.0)
    theta = unpack(result.x)
    return FitResult(theta=theta, observed=observed, residuals=np.log(t / seconds(x, theta)),
                     converged=result.status > 0)


def bootstrap(observations: list[Observation], fitted: FitResult, seed: int = 0) -> np.ndarray:
    """(DRAWS, 5) parameters refitted to data redrawn from the fit's residuals, inflated for the parameters spent."""
    rng = np.random.default_rng(seed)
    x, _ = _arrays(observations)
    n, p = len(observations), int(fitted.observed.sum())
    residuals = (fitted.residuals - fitted.residuals.mean()) * np.sqrt(n / (n - p))
    predicted = seconds(x, fitted.theta)
    draws = []
    for _ in range(DRAWS):
        redrawn = predicted * np.exp(rng.choice(residuals, size=n))
        again = [Observation(o.point, o.stage, o.x, s, o.flops) for o, s in zip(observations, redrawn, strict=True)]
        draws.append(fit(again, start=fitted.theta).theta)
    return np.array(draws)


def leave_one_out(observations: list[Observation]) -> dict[int, float]:
    """index -> log(measured / predicted) by a fit without that observation; left out where nothing else has its work."""
    errors = {}
    for i, held_out in enumerate(observations):
        rest = observations[:i] + observations[i + 1:]
        try:
            fitted = fit(rest)
        except TooFewPoints:
            continue
        if (held_out.x.astype(bool) & ~fitted.observed).any():
            continue
        errors[i] = float(np.log(held_out.seconds / seconds(held_out.x[None], fitted.theta)[0]))
    return errors


def upward(observations: list[Observation], stage: str = "denoise_step") -> list[float]:
    """log(measured / predicted) of the larger half of a stage by FLOPs, fitted on everything that is not in it.

    Empty where the smaller half cannot bear the fit."""
    steps = sorted((o for o in observations if o.stage == stage), key=lambda o: o.flops)
    larger = steps[(len(steps) + 1) // 2:]
    rest = [o for o in observations if not any(o is big for big in larger)
            and (not larger or o.flops <= larger[0].flops)]
    try:
        fitted = fit(rest)
    except TooFewPoints:
        return []
    return [float(np.log(o.seconds / seconds(o.x[None], fitted.theta)[0])) for o in larger
            if not (o.x.astype(bool) & ~fitted.observed).any()]


def constant_mfu_leave_one_out(observations: list[Observation], stage: str = "denoise_step") -> list[float]:
    """The baseline: one rate for all FLOPs of a stage (the geometric mean), each point predicted from the others."""
    rates = np.log([o.flops / o.seconds for o in observations if o.stage == stage])
    if len(rates) < 2:
        return []
    others = (rates.sum() - rates) / (len(rates) - 1)
    return [float(e) for e in others - rates]


def error_summary(log_errors: list[float]) -> dict[str, float | int] | None:
    """Mean and worst |predicted / measured - 1| and how many; None without any."""
    if not log_errors:
        return None
    errors = [abs(float(np.exp(-e)) - 1) for e in log_errors]
    return {"mean": sum(errors) / len(errors), "worst": max(errors), "n": len(errors)}


def _arrays(observations: list[Observation]) -> tuple[np.ndarray, np.ndarray]:
    if not observations:
        raise TooFewPoints("no measured stage")
    return np.stack([o.x for o in observations]), np.array([o.seconds for o in observations])
