"""How much longer a FLOP of training takes than one of generating, and what that makes of the chain's training rows.

    train_step_s = training FLOPs x (step_s / step FLOPs) x cost of a training FLOP

The last factor is measured: of every point whose denoise_step and train_step were both timed, the ratio of their seconds
per FLOP.  A train_step is one forward and one backward of the denoiser; the optimiser, data and other cards are left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.calibrate.calibration import Fit

Interval = Mapping[str, float]
"""value, low, high."""


@dataclass(frozen=True)
class TrainingCost:
    """Seconds a training FLOP over seconds a forward FLOP.  Provenance: measured."""

    ratio: dict[str, float]
    """value (geometric middle of the points), low and high (their range)."""
    points: tuple[str, ...]


def training_cost(fit: "Fit") -> tuple[TrainingCost | None, str | None]:
    """From a recipe's measured stages; None, and why, where no point has both."""
    steps = {s.point: s for s in fit.stages if s.stage == "denoise_step"}
    trained = [s for s in fit.stages if s.stage == "train_step"]
    ratios = {s.point: (s.measured_s / s.flops) / (steps[s.point].measured_s / steps[s.point].flops)
              for s in trained if s.point in steps}
    if not ratios:
        why = "no point of this calibration" if not trained else "no point whose denoise_step was timed too"
        return None, f"{why} has a train_step in recipe {fit.recipe}; `ldt-bench run chain-cpu` (or chain-gpu) measures one"
    low, high = min(ratios.values()), max(ratios.values())
    return TrainingCost({"value": (low * high) ** 0.5, "low": low, "high": high}, tuple(ratios)), None


def times(*factors: Interval | float) -> dict[str, float]:
    """Product of quantities whose intervals may all be at the same end at once."""
    out = {"value": 1.0, "low": 1.0, "high": 1.0}
    for factor in factors:
        ends = factor if isinstance(factor, Mapping) else dict.fromkeys(out, float(factor))
        out = {key: out[key] * ends[key] for key in out}
    return out


def over(a: Interval, b: Interval) -> dict[str, float]:
    """Quotient, likewise."""
    return {"value": a["value"] / b["value"], "low": a["low"] / b["high"], "high": a["high"] / b["low"]}
