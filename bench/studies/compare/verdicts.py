"""Two results, stage by stage: is b slower than a, or did the machine move?  Pure: records in,
verdicts out; numpy only.

Samples of one run resemble each other more than two runs do, so an interval from the samples alone
is too narrow: on a shared CPU two runs minutes apart differ by several times of it.  So each
ratio's interval has three parts:
- within: standard error of the ratio of medians, block bootstrap (a block is a round of sampling:
  neighbours in time agree);
- floor: what stages differ by between two sessions when nothing changed, estimated from the pair
  itself;
- drift: the interval reaches over the ratio as measured and as corrected by the control, work whose
  code does not change (the sentinel around each point where records have one, else the median of
  the ceilings' probes).
It holds for all stages of a comparison together with 95 %, else one stage in twenty would be called
wrong.

Verdicts on b: SAME, the interval is within 1 ± threshold; SLOWER, FASTER, it excludes 1 and the
ratio is over the threshold; else UNCLEAR, as is every stage whose own median is unstable.  The
median over the stages ("typical") is judged too: what is common to all of them is known far better
than any one of them.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from math import exp, log, pi, sqrt
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

from bench.core.errors import UserError
from bench.measure.timing.sampling import ROUND_S, UNSTABLE, median_interval, unstable_reason
from bench.results.environment import Environment, cards_in
from bench.results.readings import Timing
from bench.results.records import CeilingsRecord, PointRecord
from bench.results.store import ceilings_record, point_records
from bench.results.video import MEASURED

Verdict = Literal["SLOWER", "UNCLEAR", "SAME", "FASTER"]
VERDICTS: tuple[Verdict, ...] = ("SLOWER", "UNCLEAR", "SAME", "FASTER")  # worst first
THRESHOLD = {"cuda": 0.02, "cpu": 0.05}
"""Practical: what is worth a look.  A CPU that others use too moves by 1 to 3 % from run to run
(docs/methodology.md)."""
ASSUMED_FLOOR = {"cuda": 0.01, "cpu": 0.03}  # where neither probes nor stages are enough to see it
ENOUGH = 5  # probes or stages that a spread is estimated from
FEW_SAMPLES = 6  # under this a bootstrap of the median repeats the few values it has
# of three normal samples: standard error of the median 0.67 sd over their mean range 1.69 sd
RANGE_TO_ERROR = 0.4
MEDIAN_VARIANCE = pi / 2  # of a median over that of a mean, normal
DRAWS = 400
CONFIDENCE = 0.95
HISTORY_RUNS = 5
# how a record says that LDT_BENCH_TEST_SLOWDOWN was set (bench.measure.timing.clock)
UNTRUE = "not a true time"

Records = list[PointRecord | CeilingsRecord]


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


def compare(
    a: Records,
    b: Records,
    *,
    threshold: float | None = None,
    allow_different: bool = False,
    seed: int = 0,
) -> Comparison:
    """Two results.  Raises UserError where they cannot be compared."""
    environment = b[-1].environment
    warnings = _check_environments(a[-1].environment, environment, allow_different)
    limit, limit_from = _threshold(threshold, environment)
    timed_a, timed_b = _timings(a), _timings(b)
    shared = [key for key in timed_b if key in timed_a]
    stable = [_stable(key[1], timed_a[key], timed_b[key]) for key in shared]
    only_a, only_b = _only(a, timed_a, timed_b), _only(b, timed_b, timed_a)
    if not shared:
        raise UserError(
            "the two results have no measured stage of a point in common, so there is nothing to"
            " compare"
        )
    rng = np.random.default_rng(seed)
    ratios = np.array([log(timed_b[k].median_s / timed_a[k].median_s) for k in shared])
    probes = _probe_ratios(a, b)
    floor, floor_from = _floor(probes, ratios[stable], environment)
    common = float(np.median(probes)) if len(probes) else 0.0
    sentinel = _sentinel_ratios(a, b)
    drifts = np.array([sentinel.get(fingerprint, common) for fingerprint, _ in shared])
    names = _names(b)
    z = _z(len(shared))
    changes = []
    for key, ratio, drift, sure in zip(shared, ratios, drifts, stable, strict=True):
        within = sqrt(_median_error(timed_a[key], rng) ** 2 + _median_error(timed_b[key], rng) ** 2)
        half = z * sqrt(within**2 + floor**2)
        changes.append(
            _change(
                names[key[0]],
                key[1],
                ratio,
                ratio - half,
                ratio + half,
                drift,
                limit,
                timed_a[key].median_s,
                timed_b[key].median_s,
                1,
                sure,
            )
        )
    typical_drift = float(np.median(drifts))
    control = (
        "the sentinel around each point"
        if sentinel
        else (
            f"the median of {len(probes)} ceiling probes"
            if len(probes)
            else "nothing: the results share no ceilings"
        )
    )
    return Comparison(
        kind="pair",
        changes=changes,
        typical=_typical(ratios[stable], 0.0, typical_drift, limit, 1),
        threshold=limit,
        threshold_from=limit_from,
        floor=floor,
        floor_from=floor_from,
        drift=exp(typical_drift),
        control=control,
        code_a=[a[-1].environment.code_version],
        code_b=environment.code_version,
        only_a=only_a,
        only_b=only_b,
        warnings=[*warnings, *_cards(a, b), *_notes("a", a), *_notes("b", b)],
    )


def compare_history(
    b: Records, others: list[Records], *, threshold: float | None = None, seed: int = 0
) -> Comparison:
    """b against the last runs of its cohort: same kind of GPU, suite and environment but for the
    code.  One run alone is compared as a pair.  Raises UserError where there is none.

    The spread is that of successive runs (mean square successive difference / 2), since a slow
    regression, which is what a history is for, widens the spread about a mean until it hides in
    it."""
    environment = b[-1].environment
    runs = sorted((r for r in others if _same_cohort(r, b)), key=lambda r: r[0].started_utc)[
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
    limit, limit_from = _threshold(threshold, environment)
    timed, timed_b = [_timings(r) for r in runs], _timings(b)
    shared = [key for key in timed_b if sum(key in t for t in timed) >= 2]
    if not shared:
        raise UserError("no stage of this result was measured in two earlier runs of its cohort")
    earlier = {key: np.log([t[key].median_s for t in timed if key in t]) for key in shared}
    spread = {key: _successive_sd(earlier[key]) for key in shared}
    floor = sqrt(np.mean([s**2 for s in spread.values()]))
    rng, names, z = np.random.default_rng(seed), _names(b), _z(len(shared))
    changes, ratios, stable = [], [], []
    for key in shared:
        centre, k = float(np.median(earlier[key])), len(earlier[key])
        ratio = log(timed_b[key].median_s) - centre
        half = z * sqrt(
            _median_error(timed_b[key], rng) ** 2
            + max(spread[key], floor) ** 2 * (1 + MEDIAN_VARIANCE / k)
        )
        stable.append(_stable(key[1], timed_b[key]))
        changes.append(
            _change(
                names[key[0]],
                key[1],
                ratio,
                ratio - half,
                ratio + half,
                0.0,
                limit,
                exp(centre),
                timed_b[key].median_s,
                k,
                stable[-1],
            )
        )
        ratios.append(ratio)
    # What a whole run differs by from the others: their typical stage, run by run.
    whole = np.array(
        [
            np.median(
                [log(t[key].median_s) - np.median(earlier[key]) for key in shared if key in t]
            )
            for t in timed
            if any(key in t for key in shared)
        ]
    )
    half = _z(1) * _successive_sd(whole) * sqrt(1 + MEDIAN_VARIANCE / len(whole))
    return Comparison(
        kind="history",
        changes=changes,
        typical=_typical(np.array(ratios)[stable], half, 0.0, limit, len(runs)),
        threshold=limit,
        threshold_from=limit_from,
        floor=floor,
        floor_from=f"successive differences of {len(runs)} runs",
        drift=1.0,
        control="the spread of the runs",
        code_a=[r[-1].environment.code_version for r in runs],
        code_b=environment.code_version,
        only_a=_only(runs[-1], timed[-1], timed_b),
        only_b=[
            {"point": names[f], "stage": s, "why": "not in two earlier runs"}
            for f, s in timed_b
            if (f, s) not in spread
        ],
        warnings=[
            *_cards(*runs, b),
            *(
                note
                for i, r in enumerate([*runs, b])
                for note in _notes("b" if i == len(runs) else f"a{i + 1}", r)
            ),
        ],
    )


def judge(ratio: float, low: float, high: float, threshold: float) -> Verdict:
    """The rule, on ratios."""
    if 1 - threshold <= low and high <= 1 + threshold:
        return "SAME"
    if low > 1 and ratio > 1 + threshold:
        return "SLOWER"
    if high < 1 and ratio < 1 - threshold:
        return "FASTER"
    return "UNCLEAR"


def _change(
    point: str,
    stage: str,
    ratio: float,
    low: float,
    high: float,
    drift: float,
    threshold: float,
    a: float | None,
    b: float | None,
    runs: int,
    stable: bool = True,
) -> Change:
    """From logarithms; the interval is stretched by the drift."""
    low, high = exp(low - max(drift, 0.0)), exp(high - min(drift, 0.0))
    return Change(
        point=point,
        stage=stage,
        a=a,
        b=b,
        ratio=exp(ratio),
        low=low,
        high=high,
        drift=exp(drift),
        runs=runs,
        verdict=judge(exp(ratio), low, high, threshold) if stable else "UNCLEAR",
    )


def _typical(
    ratios: np.ndarray, half: float, drift: float, threshold: float, runs: int
) -> Change | None:
    """Median of the stages' log ratios, with the order statistics' interval; None where they are
    too few for one."""
    if len(ratios) < FEW_SAMPLES:
        return None
    low, high, _ = median_interval(sorted(ratios.tolist()))
    return _change(
        "typical",
        "all",
        float(np.median(ratios)),
        low - half,
        high + half,
        drift,
        threshold,
        None,
        None,
        runs,
    )


def _stable(stage: str, *timings: Timing) -> bool:
    return all(unstable_reason(stage, timing) is None for timing in timings)


def _median_error(timing: Timing, rng: np.random.Generator) -> float:
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


def _floor(probes: np.ndarray, stages: np.ndarray, environment: Environment) -> tuple[float, str]:
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


def _probe_ratios(a: Records, b: Records) -> np.ndarray:
    """Log of time b / time a of the probes in both."""

    def medians(records: Records) -> dict[Any, float]:
        ceilings = ceilings_record(records)
        return {
            (p.kind, p.dtype, p.backend, *sorted(p.shape.items())): p.timing.median_s
            for p in (ceilings.probes if ceilings else [])
        }

    first, second = medians(a), medians(b)
    return np.array([log(second[key] / first[key]) for key in second if key in first])


def _sentinel_ratios(a: Records, b: Records) -> dict[str, float]:
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


def _successive_sd(x: np.ndarray) -> float:
    """Standard deviation from the differences of neighbours, which a trend hardly changes (von
    Neumann 1941)."""
    return sqrt(float(np.mean(np.diff(x) ** 2)) / 2) if len(x) > 1 else 0.0


def _z(stages: int) -> float:
    """Half-width in standard deviations so that all intervals hold together (Šidák)."""
    return NormalDist().inv_cdf((1 + CONFIDENCE ** (1 / stages)) / 2)


def _threshold(given: float | None, environment: Environment) -> tuple[float, str]:
    if given is None:
        return THRESHOLD[environment.device], f"default on {environment.device}"
    if not 0 < given < 1:
        raise UserError(f"--threshold {given:g} is not a share between 0 and 1, such as 0.02")
    return given, "given"


def _different(a: Environment, b: Environment) -> list[str]:
    """The code is what one compares."""
    return [d for d in a.differences(b) if not d.startswith("code_version ")]


def _check_environments(a: Environment, b: Environment, allowed: bool) -> list[str]:
    different = _different(a, b)
    if different and not allowed:
        raise UserError(
            f"the environments differ: {'; '.join(different)}; a ratio would not be the code's"
            " alone (--allow-different compares all the same)"
        )
    return [f"the environments differ: {'; '.join(different)}"] if different else []


def _cards(*results: Records) -> list[str]:
    """Cards of one kind differ by a few per cent: they are compared, and it is said."""
    cards = cards_in(record.environment for records in results for record in records)
    return [f"measured on {cards}; a ratio holds what those differ by"] if cards else []


def _same_cohort(run: Records, b: Records) -> bool:
    """A run under a planted slow-down is nobody's history."""
    return (
        not any((r.reason or "").startswith(UNTRUE) for r in run)
        and run[-1].suite == b[-1].suite
        and run[0].started_utc < b[0].started_utc
        and not _different(run[-1].environment, b[-1].environment)
    )


def _timings(records: Records) -> dict[tuple[str, str], Timing]:
    """(fingerprint, stage) -> timing."""
    return {
        (r.fingerprint, stage): timing
        for r in point_records(records)
        for stage, timing in r.timings.items()
    }


def _names(records: Records) -> dict[str, str]:
    """fingerprint -> label, told apart where a suite has a label twice with other settings."""
    points = point_records(records)
    times = Counter(r.label for r in points)
    return {
        r.fingerprint: r.label if times[r.label] == 1 else f"{r.label} {r.fingerprint[:6]}"
        for r in points
    }


def _only(
    records: Records, mine: dict[tuple[str, str], Timing], theirs: dict[tuple[str, str], Timing]
) -> list[dict[str, str]]:
    """Stages measured here alone."""
    names = _names(records)
    return [
        {"point": names[f], "stage": stage, "why": "not measured in the other"}
        for f, stage in mine
        if (f, stage) not in theirs
    ]


def _notes(side: str, records: Records) -> list[str]:
    """What records say of themselves, once for all that say the same: failures, instability, a
    planted slow-down."""
    said: dict[str, list[str]] = defaultdict(list)
    names = _names(records)
    for r in point_records(records):
        text = r.reason or ""
        if r.outcome == "unstable":
            said[f"unstable: known to no better than ±{UNSTABLE:.0%}, so UNCLEAR"].append(
                names[r.fingerprint]
            )
            text = text.split("; ")[0] if text.startswith(UNTRUE) else ""
        if text or r.outcome not in MEASURED:
            said[
                f"{'' if r.outcome == 'unstable' else f'{r.outcome}: '}{text}".removeprefix("ok: ")
            ].append(names[r.fingerprint])
    return [
        f"{side}: {labels[0]}{f' and {len(labels) - 1} more' if len(labels) > 1 else ''}: {reason}"
        for reason, labels in said.items()
    ]
