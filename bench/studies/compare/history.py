"""A result against the last runs of its cohort."""

from collections.abc import Mapping
from math import exp, log, sqrt

import numpy as np

from bench.core.errors import UserError
from bench.results.readings import Timing
from bench.studies.compare.pair import compare
from bench.studies.compare.shared import (
    Records,
    labels,
    measured_in_one,
    notes,
    same_cohort,
    several_cards,
    threshold_of,
    timings,
)
from bench.studies.compare.spread import (
    MEDIAN_VARIANCE,
    intervals_sd,
    is_stable,
    median_error,
    successive_sd,
)
from bench.studies.compare.verdict import Comparison, LogRatio, change_of, typical_change

HISTORY_RUNS = 5


def compare_history(
    b: Records, others: list[Records], *, threshold: float | None = None, seed: int = 0
) -> Comparison:
    """b against the last runs of its cohort: same kind of GPU, suite and environment but for the
    code.  One run alone is compared as a pair.  Raises UserError where there is none.

    The spread is that of successive runs (mean square successive difference / 2), since a slow
    regression, which is what a history is for, widens the spread about a mean until it hides in
    it."""
    environment = b[-1].environment
    runs = sorted((r for r in others if same_cohort(r, b)), key=lambda r: r[0].started_utc)[
        -HISTORY_RUNS:
    ]
    if not runs:
        raise UserError(
            f"no earlier run of the same suite ({b[-1].suite}) and environment among {len(others)}"
            " other result(s) there; measure one, or name two directories"
        )
    if len(runs) == 1:
        pair = compare(runs[0], b, threshold=threshold, seed=seed)
        pair.warnings.append("one earlier run alone: compared as a pair")
        return pair
    limit, limit_from = threshold_of(threshold, environment)
    timed, timed_b = [timings(r) for r in runs], timings(b)
    shared = [key for key in timed_b if sum(key in t for t in timed) >= 2]
    if not shared:
        raise UserError("no stage of this result was measured in two earlier runs of its cohort")
    earlier = {key: np.log([t[key].median_s for t in timed if key in t]) for key in shared}
    spread = {key: successive_sd(earlier[key]) for key in shared}
    scatter = sqrt(np.mean([s**2 for s in spread.values()]))
    rng, names, wide = np.random.default_rng(seed), labels(b), intervals_sd(len(shared))
    changes, ratios, stable = [], [], []
    for key in shared:
        centre, k = float(np.median(earlier[key])), len(earlier[key])
        ratio = log(timed_b[key].median_s) - centre
        between = max(spread[key], scatter) ** 2 * (1 + MEDIAN_VARIANCE / k)
        half = wide * sqrt(median_error(timed_b[key], rng) ** 2 + between)
        sure = is_stable(key[1], timed_b[key])
        moved = LogRatio(ratio, ratio - half, ratio + half)
        medians = exp(centre), timed_b[key].median_s
        changes.append(change_of(names[key[0]], key[1], moved, limit, medians, runs=k, stable=sure))
        ratios.append(ratio)
        stable.append(sure)
    half = _typical_half_width(timed, earlier)
    return Comparison(
        kind="history",
        changes=changes,
        typical=typical_change(np.array(ratios)[stable], half, 0.0, limit, len(runs)),
        threshold=limit,
        threshold_from=limit_from,
        floor=scatter,
        floor_from=f"successive differences of {len(runs)} runs",
        drift=1.0,
        control="the spread of the runs",
        code_a=[r[-1].environment.code_version for r in runs],
        code_b=environment.code_version,
        only_a=measured_in_one(runs[-1], timed[-1], timed_b),
        only_b=_not_twice(timed_b, spread, names),
        warnings=[*several_cards(*runs, b), *_all_notes(runs, b)],
    )


def _not_twice(
    timed_b: Mapping[tuple[str, str], Timing],
    known: Mapping[tuple[str, str], float],
    names: Mapping[str, str],
) -> list[dict[str, str]]:
    return [
        {"point": names[fingerprint], "stage": stage, "why": "not in two earlier runs"}
        for fingerprint, stage in timed_b
        if (fingerprint, stage) not in known
    ]


def _typical_half_width(
    timed: list[dict[tuple[str, str], Timing]], earlier: dict[tuple[str, str], np.ndarray]
) -> float:
    """From what a whole run differs by from the others: their typical stage, run by run."""
    whole = []
    for run in timed:
        apart = [log(run[key].median_s) - np.median(earlier[key]) for key in earlier if key in run]
        if apart:
            whole.append(np.median(apart))
    spread = successive_sd(np.array(whole))
    return intervals_sd(1) * spread * sqrt(1 + MEDIAN_VARIANCE / len(whole))


def _all_notes(runs: list[Records], b: Records) -> list[str]:
    sides = [f"a{i}" for i in range(1, len(runs) + 1)] + ["b"]
    return [note for side, run in zip(sides, [*runs, b], strict=True) for note in notes(side, run)]
