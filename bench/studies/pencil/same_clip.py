"""Seconds of a clip made token by token: from measured stages, and what bounds it.

    seconds of the latents = prefill calls x prefill_s + decode calls x decode_token_s

decode_token is timed at the mean cache length of the clip's decode calls.  Work and bytes of a call
are affine in that length, so the mean call stands for all.  The tokenizer's decoder and the text
encoder come on top, as with diffusion.
"""

from dataclasses import dataclass
from typing import Any, Literal

from bench.core.quantity import Quantity
from bench.core.specs.model import TOKEN_STAGES
from bench.core.specs.point import Point
from bench.results.records import PointRecord
from bench.results.video import video_seconds
from models.ar.spec import AutoregressiveConfig

Bound = Literal["compute-bound", "bandwidth-bound"]


def stage_calls(point: Point) -> dict[str, int]:
    """Calls of each stage that makes latents, for one batch of videos and either kind of model."""
    denoiser = point.model.denoiser
    if isinstance(denoiser, AutoregressiveConfig):
        plan = denoiser.plan(point.model.latent_shape(point.workload))
        return {"prefill": plan.prefill_calls, "decode_token": plan.decode_calls}
    return {"denoise_step": point.workload.steps}


@dataclass(frozen=True)
class Clip:
    """One clip's latents as measured on this device.  Seconds of a video."""

    model: str
    workload: str
    recipe: str
    stages: dict[str, dict[str, float]]
    """Stage -> calls, seconds of all, FLOP/s and modelled bytes/s, and both as shares of the
    measured ceilings."""
    seconds: Quantity
    flops: int
    bytes: int
    """Modelled lower bound."""
    bound: Bound
    """The ceiling that the longest stage comes nearer to."""

    def as_dict(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "workload": self.workload,
            "recipe": self.recipe,
            "stages": self.stages,
            "latents_s": self.seconds.as_dict(),
            "flops": self.flops,
            "bytes_modelled_min": self.bytes,
            "flops_per_byte": self.flops / self.bytes,
            "bound": self.bound,
            "provenance": "measured",
        }


def measured_clips(
    records: list[PointRecord], flops_per_s: dict[str, float], bytes_per_s: float
) -> list[Clip]:
    """Every point measured in full that an auto-regressive and another model of the result share a
    workload of.

    flops_per_s: GEMM ceiling by recipe; bytes_per_s: the copy ceiling."""
    clips = [
        (bool(set(TOKEN_STAGES) & set(r.timings)), clip)
        for r in records
        if r.recipe in flops_per_s and (clip := _clip(r, flops_per_s[r.recipe], bytes_per_s))
    ]
    shared = [{c.workload for token, c in clips if token is kind} for kind in (True, False)]
    both = shared[0] & shared[1]
    return sorted((clip for _, clip in clips if clip.workload in both), key=lambda c: c.workload)


def clip_of(record: PointRecord, flops_per_s: float, bytes_per_s: float) -> Clip | None:
    """The clip that a record measured in full; None where a stage is missing."""
    return _clip(record, flops_per_s, bytes_per_s)


def _clip(record: PointRecord, flops_per_s: float, bytes_per_s: float) -> Clip | None:
    try:
        calls = stage_calls(Point.model_validate(record.point))
    except ValueError:  # of an earlier version, of which no point can be made any more
        return None
    seconds = video_seconds(calls, record.timings)
    if seconds is None:
        return None
    stages: dict[str, dict[str, float]] = {}
    for stage, n in calls.items():
        count, call_s = record.counts[stage], record.timings[stage].median_s
        stages[stage] = {
            "calls": n,
            "seconds": n * call_s,
            "flops_per_s": count.flops / call_s,
            "bytes_modelled_per_s": count.bytes_modelled_min / call_s,
            "of_gemm_ceiling": count.flops / call_s / flops_per_s,
            "of_copy_ceiling": count.bytes_modelled_min / call_s / bytes_per_s,
        }
    longest = max(stages.values(), key=lambda s: s["seconds"])
    return Clip(
        model=record.model,
        workload=record.workload,
        recipe=record.recipe,
        stages=stages,
        seconds=seconds,
        flops=sum(n * record.counts[stage].flops for stage, n in calls.items()),
        bytes=sum(n * record.counts[stage].bytes_modelled_min for stage, n in calls.items()),
        bound="compute-bound"
        if longest["of_gemm_ceiling"] >= longest["of_copy_ceiling"]
        else "bandwidth-bound",
    )
