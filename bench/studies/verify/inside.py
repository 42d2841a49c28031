"""What one record says twice: sums of operators, a probe's work, a group's ranks, a prediction's
parts."""

from collections import Counter
from collections.abc import Iterator, Sequence
from math import isclose

from bench.core.specs.point import Point
from bench.count.cache import counted
from bench.count.parallel.sent import sent_bytes
from bench.results.counts import StageCount
from bench.results.readings import GroupReading
from bench.results.records import PointRecord, Probe, Record
from bench.results.scaling import StepOnRanks
from bench.studies.verify.findings import Finding, differs, summed

CHECK = "sums within a record"
PRODUCTS = ("linear", "attention", "conv", "other")
SUMMED_KINDS = {"small_conv": "conv"}
"""Kinds of operators that a count sums with another."""


def check_inside(records: Sequence[Record]) -> Iterator[Finding]:
    """Numbers of one record that follow from others of it."""
    yield from summed(CHECK, len(records), (f for record in records for f in _of(record)))


def _of(record: Record) -> Iterator[Finding]:
    if not isinstance(record, PointRecord):
        for probe in record.probes:
            yield from _unequal(record, f"{probe.kind} {probe.shape}", _probe(probe))
        return
    for stage, count in record.counts.items():
        yield from _unequal(record, stage, _operators(count))
    for stage, timing in record.timings.items():
        if timing.launch is not None:
            pairs = {"launch.eager_s": (timing.launch.eager_s, timing.median_s)}
            yield from _unequal(record, stage, pairs)
    yield from _unequal(record, "memory", _weights(record))
    if record.group is not None:
        yield from _unequal(record, "group", _group(record, record.group))
    if record.predicted is not None:
        yield from _unequal(record, "predicted", _prediction(record.predicted, record))


Pairs = dict[str, tuple[float, float]]
"""Name -> (as stored, as it follows)."""


def _unequal(record: Record, where: str, pairs: Pairs) -> Iterator[Finding]:
    for name, (stored, follows) in pairs.items():
        if not isclose(stored, follows, rel_tol=1e-9):
            said = f"{name} {stored:.10g}, {follows:.10g} follows"
            yield differs(CHECK, f"{record.label}, {where}", said)


def _operators(count: StageCount) -> Pairs:
    """FLOPs by class and kernels, from the operators."""
    if count.operators is None:
        return {}
    flops: Counter[str] = Counter()
    for kind, each, calls in zip(
        count.operators.kind, count.operators.flops, count.operators.calls, strict=True
    ):
        flops[SUMMED_KINDS.get(kind, kind)] += each * calls
    pairs = {f"{kind}_flops": (getattr(count, f"{kind}_flops"), flops[kind]) for kind in PRODUCTS}
    return pairs | {"kernels": (count.kernels, sum(count.operators.calls))}


def _probe(probe: Probe) -> Pairs:
    shape, kind = probe.shape, probe.kind
    if "ranks" in shape:
        sent = sent_bytes(kind, shape["ranks"], shape["bytes"])
        return {"bytes_moved": (probe.bytes_moved or 0, sent)}
    if kind == "gemm":
        return {"flops": (probe.flops or 0, 2 * shape["m"] * shape["n"] * shape["k"])}
    if "channels" in shape:
        positions = shape["frames"] * shape["height"] * shape["width"]
        return {"flops": (probe.flops or 0, 2 * 27 * shape["channels"] ** 2 * positions)}
    passes = {"copy": 2, "triad": 3, "read": 1, "write": 1, "fresh_write": 1, "activation": 2}
    if kind in passes:
        return {"bytes_moved": (probe.bytes_moved or 0, passes[kind] * shape["bytes"])}
    return {}


def _weights(record: PointRecord) -> Pairs:
    if record.memory is None:
        return {}
    from bench.count.point import bytes_of_weights  # torch

    try:
        point = Point.model_validate(record.point)
        if point.fingerprint != record.fingerprint:
            return {}  # said elsewhere
        return {"weights": (record.memory.weights, bytes_of_weights(point, counted(point).params))}
    except ValueError:
        return {}


def _group(record: PointRecord, group: GroupReading) -> Pairs:
    """Its mesh is the recipe's; no rank is slower than the group; ranks are numbered."""
    mesh = record.point["recipe"]["parallel"] or {}
    degrees = {k: v for k, v in mesh.items() if k in ("cfg", "ring", "ulysses", "tensor", "data")}
    ranks = 1
    for degree in degrees.values():
        ranks *= degree
    pairs: Pairs = {
        "ranks": (len(group.ranks), ranks),
        "of_one_sample": (group.of_one_sample, ranks // degrees.get("data", 1)),
    }
    pairs |= {f"ranks.{i}": (rank.rank, i) for i, rank in enumerate(group.ranks)}
    for rank in group.ranks:
        for stage, median_s in rank.median_s.items():
            if stage in record.timings and median_s > record.timings[stage].median_s:
                slower = (median_s, record.timings[stage].median_s)
                pairs[f"rank {rank.rank}, {stage}, at most"] = slower
    return pairs


def _prediction(said: StepOnRanks, record: PointRecord) -> Pairs:
    parts = said.compute_s + said.communication_s
    pairs = {"step_s": (said.step_s.value, parts)}
    if record.group is not None:
        ranks = record.group.of_one_sample
        follows = said.one_rank_s / (ranks * said.step_s.value)
        pairs["efficiency"] = (said.efficiency, follows)
    return pairs
