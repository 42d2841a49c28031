"""A video on one card, in the parts that a mesh shares or does not."""

from collections.abc import Mapping

from bench.calibrate.evidence.observation import Observation
from bench.calibrate.scaling.model import OneCard
from bench.calibrate.scaling.traffic import Forward
from bench.core.specs.model import Model
from bench.count.cache import CountCache
from bench.count.work import denoiser_attention_width, denoiser_depth, denoiser_params

DENOISE = ("linear", "attention", "elementwise")


def one_card(
    o: Observation, model: Model, by_term: Mapping[str, float], guided: bool, cache: CountCache
) -> OneCard:
    """by_term: seconds of evidence.effects.TERMS.  What moving weights to and from the host took is
    left out: on several cards they fit."""
    return OneCard(
        denoise_s=sum(by_term[term] for term in DENOISE),
        vae_s=by_term["vae"],
        other_s=by_term["fixed"],
        forwards=o.forwards,
        guided=guided,
        forward=Forward(
            tokens=o.tokens,
            width=denoiser_attention_width(model, cache),
            blocks=denoiser_depth(model, cache),
            params=denoiser_params(model, cache) / getattr(model.denoiser, "experts", 1),
        ),
    )
