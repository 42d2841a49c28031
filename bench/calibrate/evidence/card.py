"""What is known of one card, as it travels with the package: configs/evidence/<card>.json.

docs/make_evidence.py writes the files, and CI makes them again: one that is out of date is an
error.
"""

import functools
import json
from importlib import resources
from typing import Any, Literal

import numpy as np
from pydantic import Field, ValidationError

from bench.calibrate.evidence.effects import EXPECTED, Effect, Scatter
from bench.calibrate.evidence.observation import POWER_AT, Observation, can_be_observed
from bench.calibrate.evidence.posterior import Posterior
from bench.core.errors import UserError, nearest
from bench.core.load import load, names
from bench.core.specs.gpu import Gpu
from bench.results.base import Strict

FOLDER = "evidence"  # within configs/
OBSERVATIONS = "observations.json"


class HeldOutErrors(Strict):
    """How right predictions are about rows that took no part in the fit; shares."""

    by: str
    """row, size, model, source or card: what was left out at once."""
    of: str
    """The card whose rows they are, or "all"."""
    n: int
    error: float
    worst: float
    inside: float
    """Share of the rows inside their 90 % intervals."""
    one_mfu: float | None
    """The error of one MFU for everything, held out alike."""
    best_simple: float | None
    """The better of one MFU of the card, two rates of the card and one MFU of all cards."""


class EffectRow(Strict):
    """One effect with its value."""

    term: str
    of: str
    family: str | None
    level: str | None
    spread: float
    mean: float


class CardEvidence(Strict):
    """The evidence of one card: fitted, in a form that predicts any point."""

    gpu: str
    architecture: str | None
    kind: Literal["published", "sibling", "datasheet"]
    n: int
    """Published rows of this card."""
    n_architecture: int
    """Of all cards of its architecture, its own among them."""
    n_all: int
    sources: list[str]
    siblings: list[str]
    """Cards of its architecture with rows."""
    largest_tokens: int
    """Of the rows of its architecture (of all cards where that has none)."""
    smallest_tokens: int
    disagreeing: dict[str, float]
    """Rows that the rest of the card contradicts: id -> measured over predicted without it."""
    held_out: list[HeldOutErrors]
    scatter: Scatter
    effects: list[EffectRow]
    covariance: list[float] = Field(repr=False)
    """Of the effects: the lower triangle, row by row."""

    def posterior(self) -> Posterior:
        """As the fit of all cards left it."""
        p = len(self.effects)
        lower = np.zeros((p, p))
        lower[np.tril_indices(p)] = self.covariance
        covariance = lower + np.tril(lower, -1).T
        effects = tuple(Effect(e.term, e.of, e.family, e.level, e.spread) for e in self.effects)
        return Posterior(
            self.scatter, effects, np.array([e.mean for e in self.effects]), covariance
        )

    def held_out_by(self, by: str) -> HeldOutErrors | None:
        """This card's where it has rows, else that of all cards."""
        found = {(h.by, h.of): h for h in self.held_out}
        return found.get((by, self.gpu)) or found.get((by, "all"))


def shares(gpu: str) -> dict[str, float]:
    """Shares of the card's datasheet that published runs reach: linear, attention
    (FlashAttention-2) and vae.  Raises UserError as `read_card`."""
    card = read_card(gpu)
    return {
        term: float(np.exp(-EXPECTED[term] - _common(card, term)))
        for term in ("linear", "attention", "vae")
    }


def _common(card: CardEvidence, term: str) -> float:
    """What every run on the card shares of a term's effects."""
    power = load(Gpu, card.gpu).watts_per_tflops
    factors = {"all": 1.0, "power": np.log(power / POWER_AT)}
    return sum(
        e.mean * factors[e.of]
        for e in card.effects
        if e.term == term and e.of in factors and e.family in (None, "architecture", "card")
    )


def card_names() -> list[str]:
    """Cards of configs/gpus that the model can say something of."""
    return [name for name in names("gpus") if can_be_observed(load(Gpu, name)) is None]


@functools.cache
def read_card(gpu: str) -> CardEvidence:
    """Raises UserError for a name that is no card, and for a card without evidence."""
    if gpu not in names("gpus"):
        raise UserError(
            f"--gpu {gpu!r} is not one of {', '.join(names('gpus'))}{nearest(gpu, names('gpus'))}"
        )
    reason = can_be_observed(load(Gpu, gpu))
    if reason is not None:
        raise UserError(
            f"--gpu {gpu}: there is no published evidence of it ({reason}); give --calibration, a"
            f" result measured on it; cards with evidence: {', '.join(card_names())}"
        )
    file = resources.files("configs") / FOLDER / f"{gpu}.json"
    try:
        return CardEvidence.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        raise UserError(
            f"--gpu {gpu}: configs/{FOLDER}/{gpu}.json cannot be read; make it with `python"
            " docs/make_evidence.py`"
        ) from None


class RowPrediction(Strict):
    """A published row, predicted by the fit of all others."""

    gpu: str
    seconds: float
    low: float
    high: float
    held_out_error: float
    """Mean of its card's rows, each left out."""


class HeldOut(Strict):
    """Errors of predictions of one card's rows, or of all, that took no part in the fit."""

    by: str
    """row, size, model, source or card: what was left out at once."""
    gpu: str | None
    """None: all cards."""
    n: int
    error: float
    """Mean of |predicted / measured - 1|."""
    worst: float
    worst_row: str
    inside: float
    """Share of the rows that lie in their 90 % intervals."""
    one_mfu: float | None
    """The same error where one MFU of that card predicts; None where the card has no other row."""
    two_rates: float | None
    """One rate for attention and one for all other products, of that card."""
    one_mfu_of_all_cards: float | None


def shipped_held_out() -> list[HeldOut]:
    """By every way and card."""
    return [HeldOut.model_validate(row) for row in _document()["held_out"]]


def shipped_scatter() -> list[tuple[str, float]]:
    """Name and standard deviation of each scatter."""
    return list(_document()["scatter"].items())


@functools.cache
def _document() -> dict[str, Any]:
    return json.loads((resources.files("configs") / FOLDER / OBSERVATIONS).read_bytes())


@functools.cache
def row_predictions() -> dict[str, RowPrediction]:
    """By the row's id."""
    rows = _document()["left_out"]
    return {row: RowPrediction.model_validate(found) for row, found in rows.items()}


@functools.cache
def shipped_observations() -> tuple[Observation, ...]:
    """The published rows with their counted work."""
    return tuple(Observation.model_validate(row) for row in _document()["observations"])
