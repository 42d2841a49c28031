"""The cost of a training FLOP over that of a generating FLOP, for the training rows of the
published estimate.

    train_step_s = training FLOPs x (step_s / step FLOPs) x cost of a training FLOP

The last factor is measured: of every point whose denoise_step and train_step were both timed, the
ratio of their seconds per FLOP.  A train_step is one forward and one backward of the denoiser; the
optimiser, data and other cards are left out.

A training step is no observation of the inference fit, whose attention efficiency its slower
backward would pull down: it has one factor on what that fit says of its operators (`fit_training`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.core.quantity import Quantity

if TYPE_CHECKING:
    from bench.calibrate.calibration import Fit, FittedStage, TrainingFit
    from bench.calibrate.fit import FitResult, Observation

# this project's choice: standard deviation of the logarithm from one training step to another,
SPREAD = 0.2
SPREAD_POINTS = 2  # as if it had been seen in so many before any is measured


@dataclass(frozen=True)
class TrainingCost:
    """Seconds a training FLOP over seconds a forward FLOP.  Provenance: measured."""

    ratio: Quantity
    """The geometric mean of the points, and 90 % of one more point (see `of_another`)."""
    points: tuple[str, ...]


def training_cost(fit: "Fit") -> tuple[TrainingCost | None, str | None]:
    """From a fit's measured stages; None, and why, where no point has both."""
    steps = {s.subject or s.point: s for s in fit.stages if s.stage == "denoise_step"}
    trained = (
        fit.training.stages
        if fit.training is not None
        else [s for s in fit.stages if s.stage == "train_step"]
    )
    ratios = {
        s.point: (s.measured_s / s.flops) / (step.measured_s / step.flops)
        for s in trained
        if (step := steps.get(s.subject or s.point)) is not None
    }
    if not ratios:
        why = (
            "no point of this calibration"
            if not trained
            else "no point whose denoise_step was timed too"
        )
        return (
            None,
            (
                f"{why} has a train_step in recipe {fit.recipe}; `ldt-bench run chain-cpu` (or"
                " chain-gpu) measures one"
            ),
        )
    return TrainingCost(of_another(list(ratios.values())), tuple(ratios)), None


def fit_training(
    steps: "list[Observation]",
    fitted: "FitResult",
    stage: "Callable[[Observation, float, float | None], FittedStage]",
) -> "TrainingFit | None":
    """One factor on what the inference fit says of the same operators; None without a training step
    that it can price.

    stage: makes a FittedStage of an observation, its fitted and its held-out seconds."""
    from bench.calibrate.calibration import TrainingFit

    known = [o for o in steps if fitted.knows(o.work)]
    if not known:
        return None
    inference = fitted.predict([o.work for o in known])
    ratios = [o.seconds / s for o, s in zip(known, inference, strict=True)]
    factor = of_another(ratios)
    stages = []
    for i, (o, s) in enumerate(zip(known, inference, strict=True)):
        others = ratios[:i] + ratios[i + 1 :]
        stages.append(
            stage(
                o,
                float(s) * factor.value,
                float(s) * of_another(others).value if others else None,
            )
        )
    return TrainingFit(factor=factor, stages=stages)


def of_another(ratios: list[float]) -> Quantity:
    """The geometric mean of the ratios, and 90 % of what one more would be.

    Student's t on the logarithms, whose variance is pooled with SPREAD as if that had been seen in
    SPREAD_POINTS points: one ratio alone, and two that agree by chance, still have a wide
    interval."""
    from scipy.special import stdtrit

    logs, n = [math.log(r) for r in ratios], len(ratios)
    middle = sum(logs) / n
    freedom = SPREAD_POINTS + n - 1
    variance = (SPREAD_POINTS * SPREAD**2 + sum((x - middle) ** 2 for x in logs)) / freedom
    half = float(stdtrit(freedom, 0.95)) * math.sqrt(variance * (1 + 1 / n))
    return Quantity(math.exp(middle), math.exp(middle - half), math.exp(middle + half))
