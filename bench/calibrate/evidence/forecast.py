"""Seconds, minutes of video per GPU-hour and dollars of a point, from what others published."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.calibrate.evidence.card import (
    CardEvidence,
    HeldOutErrors,
    read_card,
    shipped_observations,
)
from bench.calibrate.evidence.conditions import Conditions, of_recipe, of_rows, unknown_of
from bench.calibrate.evidence.effects import TERMS
from bench.calibrate.evidence.observation import Observation, columns
from bench.calibrate.evidence.point import NOBODY, as_observation
from bench.calibrate.evidence.posterior import Posterior
from bench.calibrate.predict import Estimate
from bench.core.errors import UserError
from bench.core.load import load
from bench.core.quantity import Provenance, Quantity
from bench.core.specs.gpu import Gpu
from bench.core.specs.point import Point
from bench.core.specs.recipe import DTYPE_BYTES
from bench.core.units import SECONDS_PER_HOUR, plain
from bench.count.cache import CountCache
from bench.count.work import denoiser_params
from bench.results.video import JOULES_PER_KWH, minutes_from, usd_per_minute

BEYOND = 1.1  # times the largest observed: further on is extrapolated
DENOISE = ("linear", "attention", "elementwise")
"""Terms of the denoiser's steps; the text encoders' thousandths are among them."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """A predicted point, and what that rests on."""

    point: Point
    gpu: Gpu
    conditions: Conditions
    video_s: Quantity
    """One video."""
    step_s: Quantity
    stages: dict[str, Quantity]
    """Seconds of denoise, vae_decode and other (start, text, writing, offloading)."""
    by_term: dict[str, float]
    """Seconds of each of TERMS: they sum to video_s."""
    minutes_per_gpu_hour: Quantity
    usd_per_minute: Quantity | None
    kwh_per_minute: Quantity
    """At most: at the card's power limit all the time."""
    fits_memory: bool
    """Do the denoiser's weights, one expert at a time, fit the card?"""
    provenance: Provenance
    evidence: CardEvidence
    known_model: bool
    """Has any card a published row of this model?"""
    same_point: tuple[Observation, ...]
    """Published rows of this very point on this card, however they were run."""
    warnings: tuple[str, ...]

    @property
    def held_out(self) -> HeldOutErrors | None:
        """How wrong predictions like this one were: of a card, model or size that was left out."""
        if self.evidence.n == 0:
            return self.evidence.held_out_by("card")
        return self.evidence.held_out_by("size" if self.known_model else "model")


def forecast(
    point: Point,
    gpu: str,
    run: Conditions | None = None,
    cache: CountCache | None = None,
    posterior: Posterior | None = None,
    source: str = NOBODY,
) -> Forecast:
    """Predict one video of a point.  run: how it is run, by default as the point's recipe says;
    posterior: what is known, by default what is shipped of the card; source: who runs it.

    Raises UserError for a card without evidence, and for a recipe that evidence says nothing of."""
    if point.recipe.on_several_ranks:
        raise UserError(
            f"recipe {point.recipe.name} has a mesh, and one card is forecast; give predict"
            " --parallel in its place"
        )
    card, sheet, counts = read_card(gpu), load(Gpu, gpu), cache or CountCache()
    conditions = run or of_recipe(point.recipe, sheet)
    asked = as_observation(point, gpu, conditions, counts).model_copy(update={"source": source})
    found = (posterior or card.posterior()).forecast(columns([asked]))
    video_s = Quantity(float(found.seconds[0]), float(found.low[0]), float(found.high[0]))
    rows = shipped_observations()
    by_term = {
        term: float(share) * video_s.value
        for term, share in zip(TERMS, found.shares[0], strict=True)
    }
    minutes = minutes_from(point.workload, video_s.scaled(point.workload.batch))
    known = any(o.model == point.model.name for o in rows)
    beyond = _beyond(asked, card)
    warnings = [*beyond, *_thin(card, known), *([] if run else unknown_of(point, sheet, rows))]
    fits = _fits(point, sheet, counts)
    if not fits:
        warnings.append(f"the denoiser's weights do not fit {gpu}'s memory: it would be offloaded")
    return Forecast(
        point=point,
        gpu=sheet,
        conditions=conditions,
        video_s=video_s,
        step_s=_denoise(video_s, by_term).scaled(1 / point.workload.steps),
        stages=_stages(video_s, by_term),
        by_term=by_term,
        minutes_per_gpu_hour=minutes,
        usd_per_minute=usd_per_minute(minutes, sheet.price_usd_per_hour),
        kwh_per_minute=_most_kwh(minutes, sheet),
        fits_memory=fits,
        provenance="fitted" if card.kind == "published" and not beyond else "extrapolated",
        evidence=card,
        known_model=known,
        same_point=same_point(asked, rows),
        warnings=tuple(warnings),
    )


def usual_conditions(model: str) -> Conditions:
    """How published rows run a model; without any, FlashAttention-2 and nothing compiled."""
    rows = [o for o in shipped_observations() if o.model == model]
    return of_rows(rows) or Conditions()


def same_point(asked: Observation, rows: Sequence[Observation]) -> tuple[Observation, ...]:
    """Rows of the same model, size and number of evaluations on the same card."""
    return tuple(
        o
        for o in rows
        if o.stages
        and (o.gpu, o.model, o.size, o.forwards)
        == (asked.gpu, asked.model, asked.size, asked.forwards)
    )


def _beyond(asked: Observation, card: CardEvidence) -> list[str]:
    """Says by how much the point is larger than the largest row, or smaller than the smallest."""
    times, under = asked.tokens / card.largest_tokens, card.smallest_tokens / asked.tokens
    of = f"the {card.architecture} rows" if card.n_architecture else "all rows"
    if under > BEYOND:
        return [
            f"extrapolated: {asked.tokens:,} tokens is {plain(under, 2)} times under the smallest"
            f" of {of} ({card.smallest_tokens:,}); kernels so small may be bound by launches"
        ]
    if times <= BEYOND:
        return []
    return [
        f"extrapolated: {asked.tokens:,} tokens is {plain(times, 2)} times the largest of {of}"
        f" ({card.largest_tokens:,})"
    ]


def _thin(card: CardEvidence, known_model: bool) -> list[str]:
    """Says what the evidence lacks, and which rows disagree."""
    out = []
    if card.kind == "sibling":
        of = ", ".join(card.siblings)
        out.append(f"extrapolated: no row of {card.gpu} is published; carried over from {of}")
    if card.kind == "datasheet":
        out.append(
            f"extrapolated: no row of {card.gpu}'s architecture is published; by its datasheet and"
            f" what the rows of other cards reach of theirs"
        )
    if not known_model:
        out.append("no published row is of this model: the interval is that of a new model")
    if card.disagreeing:
        rows = ", ".join(f"{name} (x{ratio:.2f})" for name, ratio in card.disagreeing.items())
        out.append(f"published rows of {card.gpu} that the rest contradict: {rows}")
    return out


def _fits(point: Point, gpu: Gpu, counts: CountCache) -> bool:
    """By the weights of one expert: activations of a step come on top."""
    experts = getattr(point.model.denoiser, "experts", 1)
    weights = denoiser_params(point.model, counts) / experts * DTYPE_BYTES[point.recipe.dtype]
    return weights <= (gpu.memory_bytes or np.inf)


def _denoise(video_s: Quantity, by_term: dict[str, float]) -> Quantity:
    return video_s.scaled(sum(by_term[term] for term in DENOISE) / video_s.value)


def _stages(video_s: Quantity, by_term: dict[str, float]) -> dict[str, Quantity]:
    """Each with the whole video's relative interval: rows hold whole videos, so that none of their
    shares is known better."""
    return {
        "denoise": _denoise(video_s, by_term),
        "vae_decode": video_s.scaled(by_term["vae"] / video_s.value),
        "other": video_s.scaled((by_term["fixed"] + by_term["offload"]) / video_s.value),
    }


def _most_kwh(minutes: Quantity, gpu: Gpu) -> Quantity:
    """kWh a minute of video at the card's power limit; nothing is published of what these runs
    drew."""
    assert gpu.tdp_w is not None
    seconds = SECONDS_PER_HOUR / minutes.value
    return Quantity.at_most(gpu.tdp_w * seconds / JOULES_PER_KWH)


def as_estimate(f: Forecast) -> Estimate:
    """In the form that a calibration's predictions have."""
    held_out = f.held_out
    return Estimate(
        gpu=f.gpu.name,
        step_s=f.step_s,
        video_s=f.video_s.scaled(f.point.workload.batch),
        stages={
            "denoise": f.stages["denoise"],
            "vae_decode": f.stages["vae_decode"],
            "text_encode": f.stages["other"],
        },
        step_s_by_class={term: f.by_term[term] / f.point.workload.steps for term in DENOISE},
        minutes_per_gpu_hour=f.minutes_per_gpu_hour,
        usd_per_minute=f.usd_per_minute,
        kwh_per_minute=f.kwh_per_minute,
        fits_memory=f.fits_memory,
        provenance=f.provenance,
        warnings=list(f.warnings),
        heldout_error={"mean": held_out.error, "worst": held_out.worst} if held_out else None,
    )
