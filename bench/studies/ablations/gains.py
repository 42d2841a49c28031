"""The gain of each recipe over its baseline, the distance of its output from it, and combinations
beside the product of their parts.

From records alone.  Whole videos are compared (text, trajectory, decode), by what an hour of the
device makes.  A ratio's interval takes the medians' intervals as independent errors of the
logarithm.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from bench.core.load import load
from bench.core.presets import names
from bench.core.quantity import Provenance, Quantity, fields_in_json
from bench.core.specs.claim import Claim
from bench.core.specs.gpu import Price
from bench.core.specs.point import Point
from bench.core.specs.recipe import DTYPE_BYTES
from bench.count.closed.dit import dit_parameters
from bench.count.touched import changed_fields
from bench.measure.timing.sampling import unstable_reason
from bench.results.readings import Timing
from bench.results.records import BaselineNoise, Divergence, PointRecord
from bench.results.video import (
    calls_with_trajectory,
    minutes_from,
    usd_per_minute,
    video_joules,
    video_seconds,
)
from models.spec import DiTConfig

TERNARY_BITS = 1.58  # log2 3: a weight of -1, 0 or 1 (arXiv 2402.17764)
QUALITY = "cannot tell: weights are random, so a divergence says nothing of how a picture looks"


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """One recipe beside its baseline; None where something was not measured."""

    model: str
    workload: str
    recipe: str
    baseline: str
    outcome: str
    reason: str | None
    step_s: Quantity | None
    """A trajectory's seconds over its steps: of cached steps the average."""
    video_s: Quantity | None
    """Seconds of one batch: text, every step, decode."""
    minutes_per_gpu_hour: Quantity | None
    usd_per_minute: Quantity | None
    peak_bytes: int | None
    energy_j: float | None
    """Energy of one batch."""
    compile_s: float | None
    """First calls of all stages, compilation in them; in no other figure here."""
    speed_up: Quantity | None
    """Minutes per hour over the baseline's; where a step alone was timed, how many times faster
    that is."""
    speed_up_provenance: Provenance
    """measured; counted where the recipe's arithmetic is only simulated."""
    in_turns: bool
    divergence: Divergence | None
    noise: BaselineNoise | None = None
    """The baseline against itself."""
    changes: dict[str, Any]
    """Fields of the recipe that differ from the baseline's."""
    fewer_steps: float
    """Steps of the baseline over this one's: how much of the speed-up that alone accounts for."""
    parts: tuple[str, ...] = ()
    """Recipes that change one part of `changes` each, where this one combines several."""
    product: Quantity | None = None
    """Product of their speed-ups."""
    unsteady: str | None
    """Why a median on either side is known too poorly to be ranked; None where both are steady."""
    on_front: bool = field(default=False)
    """Faster than the baseline, and no other recipe of this model and workload is both faster and
    nearer to it."""

    def as_dict(self) -> dict[str, Any]:
        divergence = self.divergence.model_dump() if self.divergence else None
        noise = self.noise.model_dump() if self.noise else None
        return fields_in_json(vars(self)) | {"divergence": divergence, "noise": noise}


def ablations(records: Iterable[PointRecord], price: Price | None) -> list[Ablation]:
    """A row for each point that has a baseline, in the order measured; what did not run keeps its
    reason."""
    last = {r.fingerprint: r for r in records}.values()
    rows = [_row(r, price) for r in last if r.against is not None]
    rows = [_with_parts(row, [r for r in rows if _same(r, row)]) for row in rows]
    return [
        replace(row, on_front=_on_front(row, [r for r in rows if _same(r, row)])) for row in rows
    ]


def _row(record: PointRecord, price: Price | None) -> Ablation:
    assert record.against is not None
    point, base = Point.model_validate(record.point), Point.model_validate(record.against.point)
    reused = {stage: r.timing for stage, r in record.against.reused.items()}
    ours_s, theirs_s = record.timings | reused, record.against.timings | reused
    video, base_video = _video(point, ours_s), _video(base, theirs_s)
    step, base_step = (
        t.seconds if (t := s.get("denoise_step")) else None for s in (ours_s, theirs_s)
    )
    speed_up, provenance = None, "measured"
    if point.recipe.quantise == "ternary":
        speed_up, provenance = _ternary_bound(record, point), "counted"
    elif video and base_video:
        speed_up = _ratio(
            base_video.scaled(1 / base.workload.video_s), video.scaled(1 / point.workload.video_s)
        )
    elif step and base_step and "trajectory" not in point.stages:
        speed_up = _ratio(
            base_step.scaled(1 / base.workload.batch), step.scaled(1 / point.workload.batch)
        )
    cards = point.recipe.cards_of_one_sample
    minutes = None if video is None else minutes_from(point.workload, video.scaled(cards))
    trajectory = record.timings.get("trajectory")
    firsts = [t.compile_s for t in record.timings.values() if t.compile_s is not None]
    return Ablation(
        model=record.model,
        workload=record.workload,
        recipe=record.recipe,
        baseline=record.against.baseline,
        outcome=record.outcome,
        reason=record.reason or record.against.reason,
        video_s=video,
        minutes_per_gpu_hour=minutes,
        step_s=trajectory.seconds.scaled(1 / point.workload.steps) if trajectory else step,
        usd_per_minute=usd_per_minute(minutes, price),
        peak_bytes=_peak(record),
        energy_j=_energy(record, point),
        compile_s=sum(firsts) if firsts else None,
        speed_up=speed_up,
        speed_up_provenance=provenance,
        in_turns=record.against.in_turns,
        divergence=record.against.divergence,
        noise=record.against.noise,
        changes={
            name: point.recipe.identity().get(name)
            for name in changed_fields(point.recipe, base.recipe)
        },
        fewer_steps=base.workload.steps / point.workload.steps,
        unsteady=_unsteady(record),
    )


def _unsteady(record: PointRecord) -> str | None:
    """Names a stage of either side whose time is known to no better than a fifth; None where there
    is no such stage."""
    assert record.against is not None
    for side, timings in (("", record.timings), ("baseline's ", record.against.timings)):
        for stage, timing in timings.items():
            if reason := unstable_reason(side + stage, timing):
                return reason
    return None


def _video(point: Point, timings: dict[str, Timing]) -> Quantity | None:
    """Seconds of one batch of videos; None where a stage of the point was not timed, or no
    trajectory is among them."""
    calls = calls_with_trajectory(point.workload, point.stages)
    return video_seconds(calls, timings) if "trajectory" in calls else None


def _ratio(a: Quantity, b: Quantity) -> Quantity:
    """a / b; their errors are independent."""
    below = math.hypot(math.log(a.value / a.low), math.log(b.high / b.value))
    above = math.hypot(math.log(a.high / a.value), math.log(b.value / b.low))
    value = a.value / b.value
    return Quantity(value, value * math.exp(-below), value * math.exp(above))


def _product(factors: list[Quantity]) -> Quantity:
    value = math.prod(f.value for f in factors)
    below = math.hypot(*(math.log(f.value / f.low) for f in factors))
    above = math.hypot(*(math.log(f.high / f.value) for f in factors))
    return Quantity(value, value * math.exp(-below), value * math.exp(above))


def _energy(record: PointRecord, point: Point) -> float | None:
    """Joules of one batch of videos; None where a stage of the point has no reading, or no
    trajectory is among them."""
    calls = calls_with_trajectory(point.workload, point.stages)
    reused = record.against.reused if record.against else {}
    joules = record.joules | {s: r.energy_j for s, r in reused.items() if r.energy_j is not None}
    return video_joules(calls, joules) if "trajectory" in calls else None


def _peak(record: PointRecord) -> int | None:
    """Bytes, over all stages: of those that were not timed again their own point's."""
    if record.memory is None or record.memory.peak_allocated is None:
        return None
    reused = record.against.reused.values() if record.against else ()
    return max(record.memory.peak_allocated, *(r.peak_allocated or 0 for r in reused), 0)


def _ternary_bound(record: PointRecord, point: Point) -> Quantity | None:
    """Counted: the most that ternary weights can gain, were a forward limited by memory traffic
    alone.  No tensor core multiplies them, so a forward limited by arithmetic gains nothing.  None
    for public models, whose parameters have no closed form, and where nothing was counted."""
    denoiser, forward = point.model.denoiser, record.counts.get("forward")
    if not isinstance(denoiser, DiTConfig) or forward is None:
        return None
    saved = dit_parameters(denoiser) * (DTYPE_BYTES[point.recipe.dtype] - TERNARY_BITS / 8)
    bound = forward.bytes_modelled_min / max(forward.bytes_modelled_min - saved, 1.0)
    return Quantity(bound, 1.0, bound)


def _same(a: Ablation, b: Ablation) -> bool:
    return (a.model, a.workload, a.baseline) == (b.model, b.workload, b.baseline)


def _with_parts(row: Ablation, rows: list[Ablation]) -> Ablation:
    """Name the recipes that change a part each of what this one changes, all of it together and
    nothing twice."""
    smaller = [
        r
        for r in rows
        if r.changes.keys() < row.changes.keys()
        and all(row.changes[name] == value for name, value in r.changes.items())
    ]
    parts: list[Ablation] = []
    left = set(row.changes)
    for candidate in sorted(smaller, key=lambda r: -len(r.changes)):
        if candidate.changes and candidate.changes.keys() <= left:
            parts.append(candidate)
            left -= candidate.changes.keys()
    if left or len(parts) < 2:
        return row
    factors = [r.speed_up for r in parts if r.speed_up is not None and r.unsteady is None]
    product = _product(factors) if len(factors) == len(parts) else None
    return replace(row, parts=tuple(r.recipe for r in parts), product=product)


def _on_front(row: Ablation, rows: list[Ablation]) -> bool:
    if not _ranked(row) or row.speed_up.value < 1:  # the baseline itself beats what is slower
        return False
    return not any(
        _ranked(r)
        and r is not row
        and r.speed_up.value >= row.speed_up.value
        and r.divergence.relative_l2 <= row.divergence.relative_l2
        and (r.speed_up.value, r.divergence.relative_l2)
        != (row.speed_up.value, row.divergence.relative_l2)
        for r in rows
    )


def _ranked(row: Ablation) -> bool:
    """A disturbed median wins no race: it keeps its row and its wide interval."""
    return (
        row.speed_up is not None
        and row.divergence is not None
        and row.speed_up_provenance == "measured"
        and row.unsteady is None
    )


@cache
def claimed_speed_ups() -> list[tuple[str, float, float]]:
    """Claims of optimised serving as a whole (`of_recipes` in configs/claims): name, and the range
    of times as fast or as cheap; the largest first."""
    found = []
    for name in names("claims"):
        claim = load(Claim, name)
        if claim.of_recipes is not None and claim.claimed is not None:
            said = claim.claimed
            ends = [end for end in (said.value, said.low, said.high) if end is not None]
            found.append((claim.of_recipes, min(ends), max(ends)))
    return sorted(found, key=lambda claim: -claim[2])


def claims(rows: list[Ablation], device: str) -> list[dict[str, Any]]:
    """The panel's speed-ups beside the fastest recipe here, and beside the fastest that takes no
    fewer steps."""
    measured = [
        r
        for r in rows
        if r.speed_up is not None
        and r.video_s is not None
        and r.speed_up_provenance == "measured"
        and r.unsteady is None
    ]
    best = max(measured, key=lambda r: r.speed_up.value, default=None)
    same_steps = max(
        (r for r in measured if r.fewer_steps <= 1), key=lambda r: r.speed_up.value, default=None
    )
    out = []
    for claim, low, high in claimed_speed_ups():
        verdict = "cannot tell: nothing was measured"
        if best is not None and device == "cpu":
            verdict = "cannot tell: claimed of GPUs, measured on a CPU"
        elif best is not None:
            verdict = (
                "not reached"
                if best.speed_up.high < low
                else "reached in speed"
                if best.speed_up.low >= low
                else "cannot tell: the interval holds it"
            )
        out.append(
            {
                "claim": claim,
                "claimed_low": low,
                "claimed_high": high,
                "verdict": verdict,
                "quality": QUALITY,
                **_best("fastest", best),
                **_best("fastest_without_fewer_steps", same_steps),
            }
        )
    return out


def _best(name: str, row: Ablation | None) -> dict[str, Any]:
    if row is None:
        return {name: None}
    return {
        name: {
            "recipe": row.recipe,
            "model": row.model,
            "speed_up": row.speed_up.as_dict(),
            "product_of_parts": row.product.as_dict() if row.product else None,
            "fewer_steps": row.fewer_steps,
            "relative_l2": row.divergence.relative_l2 if row.divergence else None,
        }
    }


def ablations_document(rows: list[Ablation], device: str) -> dict[str, Any]:
    """The machine-readable form, in SI units."""
    return {
        "rows": [row.as_dict() for row in rows],
        "claims": claims(rows, device),
    }
