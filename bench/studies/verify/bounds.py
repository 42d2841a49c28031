"""What cannot be: rates above a datasheet, more power than the limit, times that overlap."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import pairwise

from bench.core.errors import brief
from bench.core.load import datasheet
from bench.core.specs.gpu import Gpu
from bench.core.units import plain, seconds, si
from bench.results.records import CeilingsRecord, PointRecord, Probe, Record
from bench.studies.verify.findings import Finding, differs, summed
from bench.studies.verify.timings import timings_of

RATES, POWER, TIMES, MEMORY = "rates", "power", "times of day", "memory"
CACHED_BYTES = 2**30
"""A copy of less may stay in a card's cache, and be faster than its memory."""
MORE_POWER = 1.1  # boards pass their limit for milliseconds, and counters lag
CLOCK_S = 2.0
"""started_utc is in whole seconds."""
PRODUCTS = ("gemm", "attention", "conv3d", "conv3d_benchmark", "small_conv3d")
NOT_TIMED_HERE = "reused "  # of Against: seconds of another record


def check_bounds(records: Sequence[Record]) -> Iterator[Finding]:
    """By the datasheet of each record's card, where configs/gpus has one."""
    cards = {r.environment.gpu: datasheet(r.environment.gpu) for r in records}
    known = [(r, gpu) for r in records if (gpu := cards[r.environment.gpu]) is not None]
    yield from summed(RATES, len(known), (f for pair in known for f in _rates(*pair)))
    limited = [(r, gpu.tdp_w) for r, gpu in known if gpu.tdp_w is not None]
    if limited:
        yield from summed(POWER, len(limited), (f for pair in limited for f in _power(*pair)))
    else:
        yield Finding(POWER, "not checked", said="no power limit is known of this device")
    yield from summed(MEMORY, len(records), (f for r in records for f in _memory(r)))


def _rates(record: Record, gpu: Gpu) -> Iterator[Finding]:
    if isinstance(record, CeilingsRecord):
        for probe in record.probes:
            yield from _probe(record, probe, gpu)
        return
    dtype = record.point["recipe"]["dtype"]
    # The fastest format of the card: fp8 and int8 recipes multiply in it.
    peak = max(gpu.peak_flops_per_s.values(), default=None)
    if record.point["recipe"].get("quantise") in (None, "none"):
        peak = gpu.peak_flops_per_s.get(dtype, peak)
    for stage, timing in record.timings.items():
        count = record.counts[stage]
        flops = count.flops - count.norm_flops
        if peak is not None and not record.on_several_ranks and flops / timing.median_s > peak:
            said = _over(flops / timing.median_s, peak, "FLOP/s")
            yield differs(RATES, f"{record.label}, {stage}", said)


def _probe(record: CeilingsRecord, probe: Probe, gpu: Gpu) -> Iterator[Finding]:
    where = f"{record.label}, {probe.kind} {probe.shape}"
    if probe.kind in PRODUCTS:
        peak = gpu.peak_flops_per_s.get(probe.dtype)  # type: ignore[call-overload]
        if peak is not None and probe.rate > peak:
            yield differs(RATES, where, _over(probe.rate, peak, "FLOP/s"))
    elif probe.kind == "copy" and probe.shape["bytes"] >= CACHED_BYTES:
        peak = gpu.bandwidth_bytes_per_s
        if peak is not None and probe.rate > peak:
            yield differs(RATES, where, _over(probe.rate, peak, "B/s"))


def _over(rate: float, peak: float, unit: str) -> str:
    return f"{si(rate, unit, 4)}, the datasheet has {si(peak, unit, 4)}"


def _power(record: Record, limit_w: float) -> Iterator[Finding]:
    for stage, read in (record.telemetry or {}).items():
        watts = read.energy.power_w if read.energy else None
        if watts is None and read.power_w is not None:
            watts = read.power_w.median
        if watts is not None and watts > MORE_POWER * limit_w:
            said = f"{plain(watts)} W, the limit is {plain(limit_w)} W"
            yield differs(POWER, f"{record.label}, {stage}", said)


def _memory(record: Record) -> Iterator[Finding]:
    memory = record.memory if isinstance(record, PointRecord) else None
    if memory is None or memory.peak_allocated is None:
        return
    there = record.environment.memory_bytes
    if memory.peak_allocated > there:
        said = f"{memory.peak_allocated} bytes allocated, the device has {there}"
        yield differs(MEMORY, record.label, said)


def check_times(records: Sequence[Record]) -> Iterator[Finding]:
    """A record took at least its samples' seconds, and began after the one before it on its
    card."""
    yield from summed(TIMES, len(records), [*_durations(records), *_order(records)])


def _durations(records: Sequence[Record]) -> Iterator[Finding]:
    for record in records:
        spent = sum(
            sum(timing.samples_s) + sum(timing.warmup_s)
            for name, timing in timings_of(record)
            if not name.startswith(NOT_TIMED_HERE)
        )
        if spent > record.wall_s * 1.001 + CLOCK_S and not _shares_its_wall(record, records):
            said = f"samples of {seconds(spent)} in {seconds(record.wall_s)}"
            yield differs(TIMES, record.label, said)


def _shares_its_wall(record: Record, records: Sequence[Record]) -> bool:
    """Measured in turns: each has an equal share of the seconds of all."""
    alike = [r for r in records if (r.started_utc, r.wall_s) == (record.started_utc, record.wall_s)]
    return len(alike) > 1


def _order(records: Sequence[Record]) -> Iterator[Finding]:
    by_card: dict[str | None, list[Record]] = {}
    for record in records:
        by_card.setdefault(record.environment.device_uuid_hash, []).append(record)
    for own in by_card.values():
        began = [(record, _utc(record)) for record in own]
        for record, when in began:
            if when is None:
                said = f"began {brief(record.started_utc)}, which is no time of day in UTC"
                yield differs(TIMES, record.label, said)
        known = [(record, when) for record, when in began if when is not None]
        for (before, earlier), (after, later) in pairwise(known):
            if later < earlier:
                said = f"began {after.started_utc}, before {before.label} ({before.started_utc})"
                yield differs(TIMES, after.label, said)


def _utc(record: Record) -> datetime | None:
    """None for what is no time, or one of an unknown zone."""
    try:
        when = datetime.fromisoformat(record.started_utc)
    except ValueError:
        return None
    return when if when.tzinfo is not None else None
