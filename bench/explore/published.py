"""What others published, as one more source of answers on the page."""

from collections.abc import Callable
from typing import Any

from bench.calibrate.calibration import kind_of
from bench.calibrate.evidence.card import card_names
from bench.calibrate.evidence.conditions import of_recipe
from bench.calibrate.evidence.forecast import Forecast, forecast, usual_conditions
from bench.core.errors import UserError
from bench.core.load import load, names
from bench.core.specs.gpu import Gpu
from bench.core.specs.point import Point
from bench.core.specs.recipe import Recipe
from bench.count.cache import CountCache

PUBLISHED = "published evidence"
"""In the place of a result directory's name."""
FIRST_CARD, FIRST_MODEL = "h100-sxm", "wan2.1-t2v-14b"
AS_PUBLISHED = "as published rows run it"
"""A recipe's name on the page: FlashAttention, compiled or not, as most rows of the model are."""
RUN_AS_PUBLISHED = "eager-bf16"
"""The preset that a point as published is built with."""


def published_source() -> dict[str, Any]:
    """As `Table.calibrations` names a result: it can be asked for any card of `cards`."""
    card = load(Gpu, FIRST_CARD)
    spoken_of = [name for name in names("recipes") if _spoken_of(name, card)]
    return {
        "id": PUBLISHED,
        "gpu": FIRST_CARD,
        "device_name": FIRST_CARD,
        "suite": None,
        "headline_recipe": AS_PUBLISHED,
        "headline_model": FIRST_MODEL,
        "kind": kind_of(FIRST_CARD),
        "recipes": [AS_PUBLISHED, *spoken_of],
        "default_recipe": AS_PUBLISHED,
        "leave_one_out": {},
        "cards": card_names(),
    }


def published_point(point_of: Callable[[str], Point], recipe: str | None) -> Point:
    """The point that was asked for.  point_of: the point with a recipe preset.

    Raises UserError where no published row is like it."""
    as_published = recipe in (None, AS_PUBLISHED)
    point = point_of(RUN_AS_PUBLISHED if as_published else str(recipe))
    if point.model.autoregressive:
        raise UserError(f"model {point.model.name} is auto-regressive: every row is of diffusion")
    return point


def published_forecast(
    point: Point, recipe: str | None, gpu: str | None, counts: CountCache
) -> Forecast:
    """Raises UserError for a card or recipe that evidence says nothing of."""
    run = usual_conditions(point.model.name) if recipe in (None, AS_PUBLISHED) else None
    return forecast(point, gpu or FIRST_CARD, run, counts)


def on_every_card(point: Point, recipe: str | None, counts: CountCache) -> list[Forecast]:
    """The fastest card first; cards without what the recipe needs are left out."""
    found = []
    for gpu in card_names():
        try:
            found.append(published_forecast(point, recipe, gpu, counts))
        except UserError:
            continue
    return sorted(found, key=lambda f: f.video_s.value)


def _spoken_of(recipe: str, card: Gpu) -> bool:
    try:
        of_recipe(load(Recipe, recipe), card)
    except UserError:
        return False
    return True
