"""Medians, intervals and outcomes again, from the raw samples."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.measure.timing.sampling import summarise, unstable_reason
from bench.results.readings import Timing
from bench.results.records import PointRecord, Record
from bench.results.store import Round, read_rounds
from bench.studies.verify.findings import Finding, differs, summed

TIMED_OTHERWISE = ("launch", "compile_s")
"""Of a Timing: read beside the samples, so that nothing follows from them."""


def timings_of(record: Record) -> Iterator[tuple[str, Timing]]:
    """Each with the name of its stage or probe."""
    yield from record.timed
    if isinstance(record, PointRecord) and record.against is not None:
        for stage, reused in record.against.reused.items():
            yield f"reused {stage}", reused.timing


def check_timings(records: Sequence[Record]) -> Iterator[Finding]:
    """Statistics follow from the samples, and the outcome from the statistics."""
    every = [(r, name, timing) for r in records for name, timing in timings_of(r)]
    yield from summed("statistics of the samples", len(every), _statistics(every))
    points = [r for r in records if isinstance(r, PointRecord)]
    yield from summed("outcomes of the points", len(points), _outcomes(points))


def _statistics(every: Sequence[tuple[Record, str, Timing]]) -> Iterator[Finding]:
    for record, name, timing in every:
        again = summarise(timing.samples_s, timing.warmup_s, timing.stop, timing.warmup_settled)
        for field in (f for f in Timing.model_fields if f not in TIMED_OTHERWISE):
            stored, made = getattr(timing, field), getattr(again, field)
            if stored != made:
                where = f"{record.label}, {name}"
                yield differs("statistics of the samples", where, f"{field} {stored} / {made}")


def _outcomes(points: Sequence[PointRecord]) -> Iterator[Finding]:
    for record in points:
        unstable = any(unstable_reason(*item) for item in record.timed)
        said = record.outcome == "unstable"
        if record.timings and unstable != said:
            should = "unstable" if unstable else "ok"
            yield differs("outcomes of the points", record.label, f"{record.outcome} / {should}")


def check_samples(directory: Path, records: Sequence[Record]) -> Iterator[Finding]:
    """The records' samples are those that were written down as they came."""
    check = "samples as they came"
    rounds = read_rounds(directory)
    if not rounds:
        yield Finding(check, "not checked", said="samples.jsonl holds none")
        return
    kept = _by_stage(rounds)
    points = [
        (record, stage, timing)
        for record in records
        for stage, timing in timings_of(record)
        if (record.fingerprint, stage) in kept
    ]
    yield from summed(check, len(points), _missing(points, kept))


def _by_stage(rounds: Sequence[Round]) -> dict[tuple[str, str], Counter[float]]:
    kept: dict[tuple[str, str], Counter[float]] = {}
    for line in rounds:
        kept.setdefault((line.fingerprint, line.stage), Counter()).update(line.samples_s)
    return kept


def _missing(
    points: Sequence[tuple[Record, str, Timing]],
    kept: dict[tuple[str, str], Counter[float]],
) -> Iterator[Finding]:
    for record, stage, timing in points:
        unknown = Counter(timing.samples_s) - kept[record.fingerprint, stage]
        if unknown:
            said = f"{unknown.total()} of {timing.n} samples are not in samples.jsonl"
            yield differs("samples as they came", f"{record.label}, {stage}", said)
