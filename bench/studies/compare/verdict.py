"""What a comparison says of a stage, and the rule of its verdict.

Verdicts on b: SAME, the interval lies within 1 ± threshold; SLOWER or FASTER, it excludes 1 and the
ratio is over the threshold; else UNCLEAR, as is every stage whose own median is unstable.  The
median over the stages ("typical") is judged too: what is common to all of them is known far better
than any one of them.
"""

from collections import Counter
from dataclasses import dataclass, field
from math import exp
from typing import Literal

import numpy as np

from bench.measure.timing.sampling import median_interval

Verdict = Literal["SLOWER", "UNCLEAR", "SAME", "FASTER"]
VERDICTS: tuple[Verdict, ...] = ("SLOWER", "UNCLEAR", "SAME", "FASTER")  # worst first
FEW_SAMPLES = 6  # under this a bootstrap of the median repeats the few values it has


@dataclass(frozen=True, kw_only=True)
class Change:
    """One stage of one point, or what is typical of all."""

    point: str
    stage: str
    a: float | None
    """Median seconds; in a history the median of the earlier runs' medians.  None for what is
    typical."""
    b: float | None
    ratio: float
    """Time of b over time of a."""
    low: float
    high: float
    verdict: Verdict
    drift: float
    """Ratio of the control: by how much the machine alone moved, as far as is known; 1 in a
    history."""
    runs: int
    """How many earlier runs stand behind a."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What `ldt-bench compare` says."""

    kind: Literal["pair", "history"]
    changes: list[Change]
    typical: Change | None
    threshold: float
    threshold_from: str
    floor: float
    """Standard deviation of a stage's log ratio between two sessions in which nothing changed."""
    floor_from: str
    drift: float
    control: str
    """What the drift was seen by."""
    code_a: list[str]
    code_b: str
    only_a: list[dict[str, str]] = field(default_factory=list)
    only_b: list[dict[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> Verdict:
        """The worst of the stages and of what is typical."""
        found = {c.verdict for c in [*self.changes, *([self.typical] if self.typical else [])]}
        return next(v for v in VERDICTS if v in found)

    @property
    def counts(self) -> dict[str, int]:
        counted = Counter(c.verdict for c in self.changes)
        return {v: counted[v] for v in VERDICTS}


@dataclass(frozen=True)
class LogRatio:
    """Logarithm of time b over time a, and the ends of its interval."""

    value: float
    low: float
    high: float
    drift: float = 0.0
    """Of the control: the interval holds both the ratio as measured and as corrected by it."""


def judge(ratio: float, low: float, high: float, threshold: float) -> Verdict:
    """The rule, on ratios."""
    if 1 - threshold <= low and high <= 1 + threshold:
        return "SAME"
    if low > 1 and ratio > 1 + threshold:
        return "SLOWER"
    if high < 1 and ratio < 1 - threshold:
        return "FASTER"
    return "UNCLEAR"


def change_of(
    point: str,
    stage: str,
    ratio: LogRatio,
    threshold: float,
    medians: tuple[float | None, float | None],
    *,
    runs: int = 1,
    stable: bool = True,
) -> Change:
    """A stage's ratio, judged.  medians: of a and of b, seconds."""
    low, high = exp(ratio.low - max(ratio.drift, 0.0)), exp(ratio.high - min(ratio.drift, 0.0))
    return Change(
        point=point,
        stage=stage,
        a=medians[0],
        b=medians[1],
        ratio=exp(ratio.value),
        low=low,
        high=high,
        drift=exp(ratio.drift),
        runs=runs,
        verdict=judge(exp(ratio.value), low, high, threshold) if stable else "UNCLEAR",
    )


def typical_change(
    ratios: np.ndarray, half: float, drift: float, threshold: float, runs: int = 1
) -> Change | None:
    """Median of the stages' log ratios, with the order statistics' interval; None where they are
    too few for one."""
    if len(ratios) < FEW_SAMPLES:
        return None
    low, high, _ = median_interval(sorted(ratios.tolist()))
    typical = LogRatio(float(np.median(ratios)), low - half, high + half, drift)
    return change_of("typical", "all", typical, threshold, (None, None), runs=runs)
