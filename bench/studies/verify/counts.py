"""FLOPs, tokens and names again, from each record's own point."""

from collections.abc import Iterator, Sequence

from bench.core.specs.point import Point
from bench.count.cache import counted
from bench.measure.device.environment import code_version
from bench.results.records import PointRecord
from bench.studies.verify.findings import Finding, differs, summed

EXACT = ("linear_flops", "attention_flops", "conv_flops", "other_flops", "norm_flops")
MODELLED = (
    "kernels",
    "bytes_modelled_min",
    "bytes_modelled_max",
    "bytes_elementwise",
    "bytes_largest_operator",
    "bytes_peak_activations",
    "uncounted_ops",
    "operators",
)
"""They follow how this version of the code runs a model: held against records of it alone."""


def check_counts(records: Sequence[PointRecord]) -> Iterator[Finding]:
    """Each record's point is what it says it is, and is counted anew."""
    points = [(record, _point(record)) for record in records]
    lost = [record for record, point in points if point is None]
    for record in lost:
        yield Finding(
            "what was measured", "not checked", record.label, "no point can be made of it any more"
        )
    known = [(record, point) for record, point in points if point is not None]
    yield from summed("what was measured", len(known), _names(known))
    older = sum(record.environment.code_version != code_version() for record, _ in known)
    if older:
        said = "of another version of the code: their FLOPs alone were counted anew"
        yield Finding("modelled bytes and kernels", "not checked", f"{older} records", said)
    stages = sum(len(record.counts) for record, _ in known)
    yield from summed("counts", stages, _counts(known))


def _point(record: PointRecord) -> Point | None:
    try:
        return Point.model_validate(record.point)
    except ValueError:
        return None


def _names(known: Sequence[tuple[PointRecord, Point]]) -> Iterator[Finding]:
    for record, point in known:
        said = {
            "fingerprint": (record.fingerprint, point.fingerprint),
            "model": (record.model, point.model.name),
            "workload": (record.workload, point.workload.name),
            "recipe": (record.recipe, point.recipe.name),
            "tokens": (record.tokens, point.model.tokens(point.workload)),
        }
        for name, (stored, made) in said.items():
            if stored != made:
                yield differs("what was measured", record.label, f"{name} {stored} / {made}")


def _counts(known: Sequence[tuple[PointRecord, Point]]) -> Iterator[Finding]:
    now = code_version()
    for record, point in known:
        again = counted(point).stages
        for stage, count in record.counts.items():
            if stage not in again:
                continue
            same_code = record.environment.code_version == now
            for field in (*EXACT, *MODELLED) if same_code else EXACT:
                stored, made = getattr(count, field), getattr(again[stage], field)
                if stored is not None and stored != made:
                    shown = (
                        field
                        if field in ("operators", "uncounted_ops")
                        else f"{field} {stored} / {made}"
                    )
                    yield differs("counts", f"{record.label}, {stage}", shown)
