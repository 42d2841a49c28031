"""A point on several cards, from its forecast on one.  No scipy, no torch."""

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bench.calibrate.evidence.conditions import Conditions
from bench.calibrate.evidence.forecast import Forecast
from bench.calibrate.evidence.point import as_observation
from bench.calibrate.evidence.posterior import T95
from bench.calibrate.predict import Estimate
from bench.calibrate.scaling.evidence import scaling_evidence
from bench.calibrate.scaling.model import OneCard, Parts, parts_on, parts_on_one
from bench.calibrate.scaling.one import one_card
from bench.core.errors import UserError
from bench.core.quantity import Provenance, Quantity
from bench.core.specs.gpu import Gpu, Link
from bench.core.specs.point import Point
from bench.core.specs.recipe import DTYPE_BYTES
from bench.core.units import SECONDS_PER_HOUR
from bench.count.cache import CountCache
from bench.count.work import denoiser_heads
from bench.results.video import JOULES_PER_KWH, minutes_from, usd_per_minute
from models.parallel.spec import Parallel, Shape, refusal
from models.spec import DiTConfig

if TYPE_CHECKING:
    from bench.calibrate.scaling.own import OwnRanks


@dataclass(frozen=True)
class Base:
    """A point on one card, as far as several need it."""

    point: Point
    gpu: Gpu
    size: str
    """Frames, height and width, as observations write them."""
    video_s: Quantity
    """One video on one card."""
    one: OneCard
    shape: Shape
    """What a mesh must divide."""
    provenance: Provenance
    warnings: tuple[str, ...]
    own: "OwnRanks | None" = None
    """The links that its own result measured, in the place of published rows."""

    @property
    def link(self) -> Link:
        """Raises UserError where none is known."""
        name = self.gpu.name
        if self.gpu.link is None:
            raise UserError(
                f"no link between cards of {name} is known: configs/gpus/{name}.yaml has none"
            )
        return self.gpu.link

    @property
    def weight_bytes(self) -> float:
        """Of the denoiser, one expert at a time."""
        return self.one.forward.params * DTYPE_BYTES[self.point.recipe.dtype]


@dataclass(frozen=True)
class MeshForecast:
    """A point on a mesh of one kind of card."""

    parallel: Parallel
    parts: Parts
    """Seconds of one video."""
    video_s: Quantity
    minutes_per_gpu_hour: Quantity
    usd_per_minute: Quantity | None
    kwh_per_minute: Quantity | None
    """At most: all cards at their power limit."""
    efficiency: float
    """Seconds on one card over cards times these."""
    fits_memory: bool | None
    """Do the denoiser's weights, one expert at a time, fit each card?"""
    provenance: Provenance


def base_of_forecast(f: Forecast, counts: CountCache) -> Base:
    """By what others published of one card."""
    warnings = tuple(w for w in f.warnings if "offloaded" not in w)
    return _base(f.point, f.gpu, f.video_s, f.by_term, f.provenance, warnings, counts)


def base_of_estimate(
    point: Point,
    predicted: Estimate,
    gpu: Gpu,
    counts: CountCache,
    own: "OwnRanks | None" = None,
) -> Base:
    """By a calibration of one card: no term of its is known, the stages are."""
    each = 1 / point.workload.batch
    seconds = {name: q.value * each for name, q in predicted.stages.items()}
    by_term = {
        "linear": seconds.pop("denoise"),
        "attention": 0.0,
        "elementwise": 0.0,
        "vae": seconds.pop("vae_decode"),
        "fixed": sum(seconds.values()),
    }
    video_s, warnings = predicted.video_s.scaled(each), tuple(predicted.warnings)
    base = _base(point, gpu, video_s, by_term, predicted.provenance, warnings, counts)
    return replace(base, own=own)


def _base(
    point: Point,
    gpu: Gpu,
    video_s: Quantity,
    by_term: dict[str, float],
    provenance: Provenance,
    warnings: tuple[str, ...],
    counts: CountCache,
) -> Base:
    asked = as_observation(point, gpu.name, Conditions(), counts)
    guided = point.workload.forwards_per_step == 2
    one = one_card(asked, point.model, by_term, guided, counts)
    return Base(point, gpu, asked.size, video_s, one, _shape(point, counts), provenance, warnings)


def _shape(point: Point, counts: CountCache) -> Shape:
    denoiser, workload = point.model.denoiser, point.workload
    own = isinstance(denoiser, DiTConfig)
    return Shape(
        heads=denoiser_heads(point.model, counts),
        tokens=point.model.tokens(workload),
        guided=workload.forwards_per_step == 2,
        attention=denoiser.attention if own else "full",
        qk_norm=denoiser.qk_norm if own else "none",
        mlp_width=denoiser.mlp_width if own else 0,
    )


def forecast_on(base: Base, parallel: Parallel) -> MeshForecast:
    """Raises UserError for a mesh that the model cannot run on."""
    reason = refusal(parallel, base.shape)
    if reason is not None:
        raise UserError(f"{base.point.model.name} on {parallel.words()}: {reason}")
    gpu, workload = base.gpu, base.point.workload
    parts, scatter, provenance = _on_mesh(base, parallel)
    alone = parallel.of_one_sample == 1 and base.own is None
    video_s = base.video_s if alone else _spread(base, parts.seconds, scatter)
    card_s = video_s.scaled(parallel.of_one_sample * workload.batch)
    minutes = minutes_from(workload, card_s)
    return MeshForecast(
        parallel=parallel,
        parts=parts,
        video_s=video_s,
        minutes_per_gpu_hour=minutes,
        usd_per_minute=usd_per_minute(minutes, gpu.price_usd_per_hour),
        kwh_per_minute=_most_kwh(minutes, gpu),
        efficiency=base.one.seconds / (parallel.of_one_sample * parts.seconds),
        fits_memory=_fits(base, parallel),
        provenance=provenance,
    )


def _on_mesh(base: Base, parallel: Parallel) -> tuple[Parts, float, Provenance]:
    """-> parts of a video, the scatter of log seconds, and what they rest on.

    By the result's own ranks where it has them, else by published rows."""
    if base.own is not None and parallel.ranks > 1:
        try:
            parts = base.own.parts(base.one, base.point, parallel)
        except ValueError as error:
            raise UserError(f"{parallel.words()}: {error}") from None
        return parts, base.own.scatter, base.provenance
    if parallel.ranks == 1:
        return parts_on_one(base.one), 0.0, base.provenance
    fitted = scaling_evidence()
    parts = parts_on(base.one, parallel, base.link, fitted.ordered)
    known = base.provenance == "fitted" and fitted.has_seen(parallel, base.link)
    return parts, fitted.scatter, "fitted" if known else "extrapolated"


def _fits(base: Base, parallel: Parallel) -> bool | None:
    sharing = parallel.of_one_sample if parallel.shard_weights else parallel.tensor
    if base.gpu.memory_bytes is None:
        return None
    return base.weight_bytes / sharing <= base.gpu.memory_bytes


def _most_kwh(minutes: Quantity, gpu: Gpu) -> Quantity | None:
    """Of a minute of video, each card at its power limit."""
    if gpu.tdp_w is None:
        return None
    return Quantity.at_most(gpu.tdp_w * SECONDS_PER_HOUR / minutes.value / JOULES_PER_KWH)


def _spread(base: Base, seconds: float, scatter: float) -> Quantity:
    """What one card is not known by, and what the mesh is not: both of log seconds."""
    q = base.video_s
    low, high = (math.log(end / q.value) for end in (q.low, q.high))
    width = T95 * scatter
    return Quantity(
        seconds,
        seconds * math.exp(-math.hypot(low, width)),
        seconds * math.exp(math.hypot(high, width)),
    )
