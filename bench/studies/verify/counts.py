"""FLOPs, tokens and names again, from each record's own point."""

from collections.abc import Iterator, Sequence

from bench.core.errors import UserError
from bench.core.specs.point import Point, check
from bench.count.cache import counted
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
    from bench.measure.device.environment import code_version  # torch

    now = code_version()
    known = []
    for record in records:
        point, reason = _point(record)
        if point is not None:
            known.append((record, point))
            continue
        verdict = "differs" if record.environment.code_version == now else "not checked"
        yield Finding("what was measured", verdict, record.label, reason)
    yield from summed("what was measured", len(known), _names(known))
    older = sum(record.environment.code_version != now for record, _ in known)
    if older:
        said = "of another version of the code: their FLOPs alone were counted anew"
        yield Finding("modelled bytes and kernels", "not checked", f"{older} records", said)
    stages = sum(len(record.counts) for record, _ in known)
    yield from summed("counts", stages, _counts(known, now))


def _point(record: PointRecord) -> tuple[Point | None, str]:
    """The record's point, or None and why none can be made of it."""
    try:
        point = Point.model_validate(record.point)
        check(point.model, point.workload, point.recipe)
        point.model.tokens(point.workload)
    except ValueError as error:
        return None, str(error).splitlines()[0]
    return point, ""


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


def _counts(known: Sequence[tuple[PointRecord, Point]], now: str) -> Iterator[Finding]:
    for record, point in known:
        if record.fingerprint != point.fingerprint:
            continue  # said already: it is another point
        try:
            again = counted(point).stages
        except UserError as error:  # a user's own class, which nothing here may import
            yield Finding("counts", "not checked", record.label, str(error))
            continue
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
