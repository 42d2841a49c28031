"""Two results, stage by stage: is b slower than a, or did the machine move?  Pure: records in,
verdicts out; numpy only.

Samples of one run resemble each other more than two runs do, so an interval from the samples alone
is too narrow: on a shared CPU two runs minutes apart differ by several times of it.  So each
ratio's interval has three parts:
- within: standard error of the ratio of medians, block bootstrap (a block is a round of sampling:
  neighbours in time agree);
- floor: what stages differ by between two sessions when nothing changed, estimated from the pair
  itself;
- drift: the interval holds both the ratio as measured and as corrected by the control, work whose
  code does not change (the sentinel around each point where records have one, else the median of
  the ceilings' probes).
It holds for all stages of a comparison together with 95 %, else one stage in twenty would be called
wrong.
"""

from math import exp, log, sqrt

import numpy as np

from bench.core.errors import UserError
from bench.studies.compare.shared import (
    Records,
    aligned,
    check_environments,
    counts_apart,
    labels,
    measured_in_one,
    notes,
    several_cards,
    threshold_of,
    timings,
    weights_apart,
)
from bench.studies.compare.spread import (
    floor,
    intervals_sd,
    is_stable,
    median_error,
    probe_ratios,
    sentinel_ratios,
)
from bench.studies.compare.verdict import Comparison, LogRatio, change_of, typical_change


def compare(
    a: Records,
    b: Records,
    *,
    threshold: float | None = None,
    allow_different: bool = False,
    seed: int = 0,
) -> Comparison:
    """Two results.  Raises UserError where they cannot be compared."""
    environment, a = b[-1].environment, aligned(a, b)
    warnings = check_environments(a[-1].environment, environment, allow_different)
    warnings += [*counts_apart(a, b), *weights_apart(a, b)]
    limit, limit_from = threshold_of(threshold, environment)
    timed_a, timed_b = timings(a), timings(b)
    shared = [key for key in timed_b if key in timed_a]
    stable = [is_stable(key[1], timed_a[key], timed_b[key]) for key in shared]
    only_a, only_b = measured_in_one(a, timed_a, timed_b), measured_in_one(b, timed_b, timed_a)
    if not shared:
        raise UserError(
            "the two results have no measured stage of a point in common, so there is nothing to"
            " compare"
        )
    ratios = np.array([log(timed_b[k].median_s / timed_a[k].median_s) for k in shared])
    probes = probe_ratios(a, b)
    scatter, scatter_from = floor(probes, ratios[stable], environment)
    common = float(np.median(probes)) if len(probes) else 0.0
    sentinel = sentinel_ratios(a, b)
    drifts = np.array([sentinel.get(fingerprint, common) for fingerprint, _ in shared])
    rng, names, wide = np.random.default_rng(seed), labels(b), intervals_sd(len(shared))
    changes = []
    for key, ratio, drift, sure in zip(shared, ratios, drifts, stable, strict=True):
        first, second = timed_a[key], timed_b[key]
        within = sqrt(median_error(first, rng) ** 2 + median_error(second, rng) ** 2)
        half = wide * sqrt(within**2 + scatter**2)
        moved = LogRatio(ratio, ratio - half, ratio + half, drift)
        medians = first.median_s, second.median_s
        changes.append(change_of(names[key[0]], key[1], moved, limit, medians, stable=sure))
    typical_drift = float(np.median(drifts))
    return Comparison(
        kind="pair",
        changes=changes,
        typical=typical_change(ratios[stable], 0.0, typical_drift, limit),
        threshold=limit,
        threshold_from=limit_from,
        floor=scatter,
        floor_from=scatter_from,
        drift=exp(typical_drift),
        control=_control(bool(sentinel), len(probes)),
        code_a=[a[-1].environment.code_version],
        code_b=environment.code_version,
        only_a=only_a,
        only_b=only_b,
        warnings=[*warnings, *several_cards(a, b), *notes("a", a), *notes("b", b)],
    )


def _control(sentinel: bool, probes: int) -> str:
    """What the drift was seen by."""
    if sentinel:
        return "the sentinel around each point"
    if probes:
        return f"the median of {probes} ceiling probes"
    return "nothing: the results share no ceilings"
