"""A point as an observation without seconds: its counted work on a card, run in a given way."""

from bench.calibrate.evidence.conditions import Conditions
from bench.calibrate.evidence.observation import Observation
from bench.core.specs.model import Model, needs_condition
from bench.core.specs.point import Point
from bench.core.specs.workload import Workload
from bench.count.cache import CountCache
from bench.count.work import (
    Size,
    decode_flops,
    denoiser_depth,
    encode_flops,
    forward_work,
    text_work,
)

NOBODY = "you"
"""The source of a point that is predicted: none that was observed."""
ANY_SECONDS = 1.0  # a point that is predicted has none


def as_observation(point: Point, gpu: str, run: Conditions, cache: CountCache) -> Observation:
    """One video of the point.  Imports torch where its work was not counted before.

    Raises UserError where the model cannot be counted."""
    model, workload = point.model, point.workload
    size: Size = (workload.frames, workload.height, workload.width)
    forward = forward_work(model, size, cache)
    vae_flops = decode_flops(model, size, cache)
    if needs_condition(model, workload):
        given = workload.encoded_frames or workload.frames
        vae_flops += encode_flops(model, (given, workload.height, workload.width), cache)
    forwards = evaluations(point, cache)
    work = forward * forwards + text_work(model.text_encoders, workload.forwards_per_step)
    tokens = model.tokens(workload)
    return Observation(
        id=point.label,
        gpu=gpu,
        model=model.name,
        source=NOBODY,
        grade="A",
        frames=workload.frames,
        height=workload.height,
        width=workload.width,
        tokens=tokens,
        forwards=forwards,
        seconds=ANY_SECONDS,
        linear_flops=work.linear_flops + work.conv_flops,
        attention_flops=work.attention_flops,
        vae_flops=vae_flops,
        elementwise_bytes=work.elementwise_bytes,
        flops_per_token=(forward.linear_flops + forward.conv_flops) / tokens,
        stages=bool(model.text_encoders),
        fast_attention=run.fast_attention,
        unfused=not run.compiled,
        offloaded=run.offloaded,
        fp8=run.fp8,
    )


def evaluations(point: Point, counts: CountCache) -> float:
    """Forwards of one video, those that a cache answers by the share of the blocks that they
    run."""
    workload: Workload = point.workload
    in_all = workload.steps * workload.forwards_per_step
    cache = point.recipe.cache
    if cache is None:
        return float(in_all)
    computed = sum(cache.schedule(workload.steps)) * workload.forwards_per_step
    return computed + (in_all - computed) * _share_of_reuse(cache.kind, point.model, counts)


def _share_of_reuse(kind: str, model: Model, counts: CountCache) -> float:
    """Of a forward's work that a reused evaluation still runs: the first of its blocks, or nothing;
    all of it where the cache keeps parts of blocks."""
    if kind == "whole-step":
        return 0.0
    if kind in ("first-block", "taylor", "magcache"):
        return 1.0 / denoiser_depth(model, counts)
    return 1.0
