"""What stages differ by when nothing changed: within a run, and between two runs.

Samples of one run resemble each other more than two runs do, so an interval from the samples alone
is too narrow: on a shared CPU two runs minutes apart differ by several times of it.
"""

from math import log, pi, sqrt
from statistics import NormalDist
from typing import Any

import numpy as np

from bench.measure.timing.sampling import ROUND_S, unstable_reason
from bench.results.environment import Environment
from bench.results.readings import Timing
from bench.results.store import ceilings_record, point_records
from bench.studies.compare.shared import Records
from bench.studies.compare.verdict import FEW_SAMPLES

ASSUMED_FLOOR = {"cuda": 0.01, "cpu": 0.03}  # where neither probes nor stages are enough to see it
ENOUGH = 5  # probes or stages that a spread is estimated from
# of three normal samples: standard error of the median 0.67 sd over their mean range 1.69 sd
RANGE_TO_ERROR = 0.4
MEDIAN_VARIANCE = pi / 2  # of a median over that of a mean, normal
DRAWS = 400
CONFIDENCE = 0.95


def is_stable(stage: str, *timings: Timing) -> bool:
    return all(unstable_reason(stage, timing) is None for timing in timings)


def median_error(timing: Timing, rng: np.random.Generator) -> float:
    """Standard error of the log of a median.  Circular blocks as long as a round, at most a third
    of the samples."""
    x = np.log(timing.samples_s)
    n = len(x)
    if n < FEW_SAMPLES:
        return RANGE_TO_ERROR * float(np.ptp(x)) if n > 1 else 0.0
    length = int(np.clip(round(ROUND_S / timing.median_s), round(n ** (1 / 3)), n // 3))
    starts = rng.integers(n, size=(DRAWS, -(-n // length), 1))
    drawn = x[(starts + np.arange(length)) % n].reshape(DRAWS, -1)[:, :n]
    return float(np.median(drawn, axis=1).std())


def floor(probes: np.ndarray, stages: np.ndarray, environment: Environment) -> tuple[float, str]:
    """What the stages of two sessions differ by when nothing changed, and where that is from.

    Both the probes' and the stages' ratios scatter about their median by at least that: probes are
    smaller kernels that one disturbance changes whole, and stages may have changed in truth.  So
    each is too large if anything, and the smaller one is taken.  Root mean square, not a robust
    spread: disturbances come in bursts of seconds, and a robust spread leaves out just those."""
    found = [
        (sqrt(np.mean((x - np.median(x)) ** 2)), f"scatter of {len(x)} {what}")
        for x, what in ((probes, "ceiling probes"), (stages, "stages"))
        if len(x) >= ENOUGH
    ]
    return min(
        found,
        default=(ASSUMED_FLOOR[environment.device], "assumed: too few probes and stages to see it"),
    )


def probe_ratios(a: Records, b: Records) -> np.ndarray:
    """Log of time b / time a of the probes in both."""

    def medians(records: Records) -> dict[Any, float]:
        ceilings = ceilings_record(records)
        return {
            (p.kind, p.dtype, p.backend, *sorted(p.shape.items())): p.timing.median_s
            for p in (ceilings.probes if ceilings else [])
        }

    first, second = medians(a), medians(b)
    return np.array([log(second[key] / first[key]) for key in second if key in first])


def sentinel_ratios(a: Records, b: Records) -> dict[str, float]:
    """Log of time b / time a of the sentinel around each point that has it in both results, by
    fingerprint."""

    def readings(records: Records) -> dict[str, float]:
        return {
            r.fingerprint: sqrt(r.sentinel.before_s * r.sentinel.after_s)
            for r in point_records(records)
            if r.sentinel is not None
        }

    first, second = readings(a), readings(b)
    return {key: log(second[key] / first[key]) for key in second if key in first}


def successive_sd(x: np.ndarray) -> float:
    """Standard deviation from the differences of neighbours, which a trend hardly changes (von
    Neumann 1941)."""
    return sqrt(float(np.mean(np.diff(x) ** 2)) / 2) if len(x) > 1 else 0.0


def intervals_sd(stages: int) -> float:
    """Half-width in standard deviations so that all intervals hold together (Šidák)."""
    return NormalDist().inv_cdf((1 + CONFIDENCE ** (1 / stages)) / 2)
