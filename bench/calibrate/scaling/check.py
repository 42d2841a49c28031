"""Steps on several ranks beside what was predicted of them, and how far the predictions lie."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bench.calibrate.fitting.accuracy import Errors, TooFewPoints, errors_of, leave_groups_out
from bench.results.records import PointRecord
from bench.results.scaling import StepOnRanks
from bench.results.video import MEASURED

STAGE = "denoise_step"


@dataclass(frozen=True)
class MeasuredStep:
    """A step on ranks that was predicted before it was measured."""

    record: PointRecord
    predicted: StepOnRanks
    measured_s: float
    in_collectives_s: float | None
    """Of the rank that spent most there, waiting for others included."""

    @property
    def efficiency(self) -> float:
        """One rank's seconds over the ranks of a sample times these.  Provenance: measured, where
        one rank's seconds were."""
        assert self.record.group is not None
        return self.predicted.one_rank_s / (self.record.group.of_one_sample * self.measured_s)

    @property
    def log_miss(self) -> float:
        """log(measured / predicted)."""
        return float(np.log(self.measured_s / self.predicted.step_s.value))


def measured_steps(records: Sequence[PointRecord]) -> list[MeasuredStep]:
    """In the order they were measured."""
    return [
        MeasuredStep(r, r.predicted, r.timings[STAGE].median_s, _longest_wait(r))
        for r in records
        if r.outcome in MEASURED and r.group and r.predicted and STAGE in r.timings
    ]


def _longest_wait(record: PointRecord) -> float | None:
    assert record.group is not None
    spent = [rank.in_collectives_s for rank in record.group.ranks]
    return max((s[STAGE] for s in spent if s is not None and STAGE in s), default=None)


def errors(steps: Sequence[MeasuredStep]) -> dict[str, Errors | None]:
    """By how the step was predicted.

    before: nothing but one rank and the links was measured.  held out: times one factor, the mean
    of the other models' and workloads' misses, for what no part of the model names.  constant
    efficiency: the mean of the others'."""
    misses = np.array([step.log_miss for step in steps])
    efficiencies = np.log([step.efficiency for step in steps])
    groups = [(step.record.model, step.record.workload) for step in steps]

    def others_mean(values: np.ndarray) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        def predict(fitted: np.ndarray, asked: np.ndarray) -> np.ndarray:
            if not fitted.any():
                raise TooFewPoints("no other step")
            return np.full(asked.sum(), values[fitted].mean())

        return predict

    def held_out(values: np.ndarray) -> Errors | None:
        left = values - leave_groups_out(groups, others_mean(values))
        return errors_of(left[np.isfinite(left)])

    return {
        "before": errors_of(misses),
        "held_out": held_out(misses),
        "constant_efficiency": held_out(-efficiencies),
    }
