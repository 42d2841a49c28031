"""How far predictions lie from what was measured, and from what fits that never saw it."""

from collections.abc import Callable, Hashable, Iterable, Sequence

import numpy as np
from pydantic import ConfigDict

from bench.results.base import Strict

INTERVAL = (5.0, 95.0)  # percentiles of every fitted interval: 90 %


class TooFewPoints(ValueError):
    """Fewer observations than rates to fit, none at all, or all of one size."""


class Errors(Strict):
    """|predicted / measured - 1|."""

    model_config = ConfigDict(allow_inf_nan=False)  # it is read back and printed as JSON

    mean: float
    median: float
    worst: float
    n: int


def errors_of(log_errors: Iterable[float]) -> Errors | None:
    """From log(measured / predicted); None without any."""
    errors = np.abs(np.exp(-np.array(list(log_errors), dtype=float)) - 1)
    if not len(errors):
        return None
    return Errors(
        mean=float(errors.mean()),
        median=float(np.median(errors)),
        worst=float(errors.max()),
        n=len(errors),
    )


def leave_groups_out(
    groups: Sequence[Hashable], predict: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> np.ndarray:
    """Predict each group's members from all others -> (n,), nan where nothing predicts them.

    predict: the rows to fit and the rows to predict, both (n,) bool -> seconds of the latter.  It
    may raise TooFewPoints, and give nan for single rows."""
    seconds = np.full(len(groups), np.nan)
    for group in dict.fromkeys(groups):
        out = np.array([g == group for g in groups])
        try:
            seconds[out] = predict(~out, out)
        except TooFewPoints:
            continue
    return seconds


def constant_rate(
    work: np.ndarray, seconds: np.ndarray, groups: Sequence[Hashable] | None = None
) -> np.ndarray:
    """The baseline: each group's rows (each row by default) from one rate for all work, the
    geometric mean of the others' -> (n,) seconds; nan where there are no others."""
    logs = np.log(work / seconds)

    def predict(kept: np.ndarray, out: np.ndarray) -> np.ndarray:
        if not kept.any():
            raise TooFewPoints("no other row")
        return work[out] / np.exp(logs[kept].mean())

    return leave_groups_out(range(len(work)) if groups is None else groups, predict)
