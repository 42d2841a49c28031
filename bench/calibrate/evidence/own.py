"""A card's own stage records as observations, fitted together with what others published.

A row of a table observes the sum of a video's terms, a stage record one or two of them: both
observe the same effects.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from bench.calibrate.evidence.card import shipped_observations, shipped_scatter
from bench.calibrate.evidence.conditions import FAST, HALF, of_recipe
from bench.calibrate.evidence.effects import Scatter
from bench.calibrate.evidence.fit import fit
from bench.calibrate.evidence.observation import Observation, can_be_observed, columns
from bench.calibrate.evidence.posterior import Posterior
from bench.core.load import load, names
from bench.core.specs.gpu import Gpu
from bench.core.specs.point import Point
from bench.results.records import PointRecord
from bench.results.video import MEASURED

OWN = "own records"
"""Their source: what is common to all that this harness measures on this card is its effect."""
STAGES = ("denoise_step", "vae_decode")


def own_observations(records: Iterable[PointRecord]) -> list[Observation]:
    """Every timed step and decoding, in 16 bits, of a card that has a datasheet."""
    found = []
    for record in records:
        gpu = record.environment.gpu
        known = gpu in names("gpus") and can_be_observed(load(Gpu, gpu)) is None
        point = Point.model_validate(record.point)
        if record.outcome not in MEASURED or not known or point.recipe.dtype not in HALF:
            continue
        found += [_of_stage(record, point, s) for s in STAGES if s in record.timings]
    return found


def _of_stage(record: PointRecord, point: Point, stage: str) -> Observation:
    count, gpu = record.counts[stage], record.environment.gpu
    run = of_recipe(point.recipe, load(Gpu, gpu))
    fast = run.fast_attention
    if record.attention_ran is not None:  # what ran, whatever the recipe asked for
        fast = record.attention_ran.backend in FAST
    workload, tokens = point.workload, point.model.tokens(point.workload)
    linear = float(count.linear_flops + count.conv_flops + count.other_flops)
    denoises = stage == "denoise_step"
    forwards = workload.forwards_per_step * workload.batch
    return Observation(
        id=f"{point.label} {stage}",
        kind="stage",
        gpu=gpu,
        model=point.model.name,
        source=OWN,
        grade="A",
        frames=workload.frames,
        height=workload.height,
        width=workload.width,
        tokens=tokens,
        forwards=forwards if denoises else 0,
        seconds=record.timings[stage].median_s,
        linear_flops=linear if denoises else 0.0,
        attention_flops=float(count.attention_flops) if denoises else 0.0,
        vae_flops=0.0 if denoises else float(count.flops),
        elementwise_bytes=float(count.bytes_elementwise) if denoises else 0.0,
        flops_per_token=max(linear / (tokens * forwards), 1.0),
        stages=False,
        fast_attention=fast,
        unfused=not run.compiled,
        offloaded=run.offloaded,
        fp8=run.fp8,
    )


def together(own: Sequence[Observation]) -> Posterior:
    """The published rows and a card's own records, fitted at once, with the scatters of the
    published rows."""
    all_ = [*shipped_observations(), *own]
    scatter = Scatter(**dict(shipped_scatter()))
    return fit(columns(all_), np.array([o.seconds for o in all_]), scatter).posterior
