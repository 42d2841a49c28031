"""What two results share, and whether they may be compared."""

from collections import Counter, defaultdict

from bench.core.errors import UserError
from bench.measure.timing.sampling import UNSTABLE
from bench.results.environment import Environment, cards_in
from bench.results.readings import Timing
from bench.results.records import CeilingsRecord, PointRecord
from bench.results.store import point_records
from bench.results.video import MEASURED

THRESHOLD = {"cuda": 0.02, "cpu": 0.05}
"""Practical: what is worth a look.  A CPU that others use too moves by 1 to 3 % from run to run
(docs/methodology.md)."""
# how a record says that LDT_BENCH_TEST_SLOWDOWN was set (bench.measure.timing.clock)
UNTRUE = "not a true time"


Records = list[PointRecord | CeilingsRecord]


def threshold_of(given: float | None, environment: Environment) -> tuple[float, str]:
    if given is None:
        return THRESHOLD[environment.device], f"default on {environment.device}"
    if not 0 < given < 1:
        raise UserError(f"--threshold {given:g} is not a share between 0 and 1, such as 0.02")
    return given, "given"


def different(a: Environment, b: Environment) -> list[str]:
    """The code is what one compares."""
    return [d for d in a.differences(b) if not d.startswith("code_version ")]


def check_environments(a: Environment, b: Environment, allowed: bool) -> list[str]:
    apart = different(a, b)
    if apart and not allowed:
        raise UserError(
            f"the environments differ: {'; '.join(apart)}; a ratio would not be the code's"
            " alone (--allow-different compares all the same)"
        )
    return [f"the environments differ: {'; '.join(apart)}"] if apart else []


def several_cards(*results: Records) -> list[str]:
    """Cards of one kind differ by a few per cent: they are compared, and it is said."""
    cards = cards_in(record.environment for records in results for record in records)
    return [f"measured on {cards}; a ratio holds what those differ by"] if cards else []


def same_cohort(run: Records, b: Records) -> bool:
    """A run under a planted slow-down is nobody's history."""
    return (
        not any((r.reason or "").startswith(UNTRUE) for r in run)
        and run[-1].suite == b[-1].suite
        and run[0].started_utc < b[0].started_utc
        and not different(run[-1].environment, b[-1].environment)
    )


def timings(records: Records) -> dict[tuple[str, str], Timing]:
    """(fingerprint, stage) -> timing."""
    return {
        (r.fingerprint, stage): timing
        for r in point_records(records)
        for stage, timing in r.timings.items()
    }


def labels(records: Records) -> dict[str, str]:
    """fingerprint -> label, told apart where a suite has a label twice with other settings."""
    points = point_records(records)
    times = Counter(r.label for r in points)
    return {
        r.fingerprint: r.label if times[r.label] == 1 else f"{r.label} {r.fingerprint[:6]}"
        for r in points
    }


def aligned(a: Records, b: Records) -> Records:
    """a with b's fingerprints where a point of one name is another by now (a file was edited): its
    times are compared, and `counts_apart` says by how much its work differs."""
    there, here = _by_label(a), _by_label(b)
    fingerprints_a = {r.fingerprint for r in point_records(a)}
    fingerprints_b = {r.fingerprint for r in point_records(b)}
    renamed = {
        there[label]: fingerprint
        for label, fingerprint in here.items()
        if fingerprint not in fingerprints_a and there.get(label) not in (None, *fingerprints_b)
    }
    return [
        record.model_copy(update={"fingerprint": renamed[record.fingerprint]})
        if record.fingerprint in renamed
        else record
        for record in a
    ]


def _by_label(records: Records) -> dict[str, str]:
    """Label -> fingerprint, of labels that one point has."""
    points = point_records(records)
    times = Counter(r.label for r in points)
    return {r.label: r.fingerprint for r in points if times[r.label] == 1}


def counts_apart(a: Records, b: Records) -> list[str]:
    """Stages of one point whose counted FLOPs differ: their seconds are of other work."""
    before = {r.fingerprint: r.counts for r in point_records(a)}
    names = labels(b)
    found = []
    for record in point_records(b):
        for stage in record.timings:
            was = before.get(record.fingerprint, {}).get(stage)
            now = record.counts[stage]
            if was is not None and was.flops != now.flops:
                share = now.flops / was.flops - 1
                found.append(f"{names[record.fingerprint]}, {stage}: counted FLOPs {share:+.1%}")
    return found


def weights_apart(a: Records, b: Records) -> list[str]:
    """A line where points of the two had other weights: real ones and random ones."""
    before = {r.fingerprint: r.real_weights for r in point_records(a)}
    changed = [
        r.label
        for r in point_records(b)
        if r.fingerprint in before and before[r.fingerprint] != r.real_weights
    ]
    if not changed:
        return []
    more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
    return [f"other weights in b than in a (real, random, or of another file): {changed[0]}{more}"]


def measured_in_one(
    records: Records, mine: dict[tuple[str, str], Timing], theirs: dict[tuple[str, str], Timing]
) -> list[dict[str, str]]:
    """Stages measured here alone."""
    names = labels(records)
    return [
        {"point": names[f], "stage": stage, "why": "not measured in the other"}
        for f, stage in mine
        if (f, stage) not in theirs
    ]


def notes(side: str, records: Records) -> list[str]:
    """What records say of themselves, once for all that say the same: failures, instability, a
    planted slow-down."""
    said: dict[str, list[str]] = defaultdict(list)
    names = labels(records)
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
