"""The cost model of all cards: six terms, and the effects that make one card, model or source
differ from another.

    log seconds = log sum over terms of exp(log seconds at the datasheet + prior + effects of the
                  term) + effects of the whole

Every effect is normal about 0 with a standard deviation of its own: wide for what all cards share,
narrow for what makes one card differ from its architecture (a hierarchical model: Gelman & Hill
2007, chapters 12 and 13).  So a card with four rows borrows from its siblings, and one without rows
is predicted from them, less surely.

A card's power over its peak is a covariate: an H20 has 2.7 W a TFLOP/s and reaches 0.6 of its
datasheet in attention, an H100 PCIe 0.46 W and less.  Of 15 cards, each left out, it halves the
error (docs/log.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

import numpy as np

from bench.calibrate.evidence.observation import TERMS, Columns
from bench.results.base import Positive, Strict

WHOLE = "video"
EXPECTED = {
    "linear": -log(0.55),
    "attention": -log(0.40),
    "vae": -log(0.20),
    "elementwise": log(0.5),
    "fixed": log(3.0),
    "offload": log(20.0),
}
"""Log of what a term takes over its seconds at the datasheet, before anything is observed; of fixed
and offload log of seconds."""
FAST_GAIN = {"hopper": 2.0, "blackwell": 2.0}
"""FlashAttention-3 or cuDNN over FlashAttention-2, as believed before: 1.7 to 2.3 on Hopper, 1.00
on an L40S and 0.82 on an A100 (PR 48163 of transformers).  Blackwell's is taken to be Hopper's:
this project's choice."""
FUSED_SHARE = 1 / 3  # of elementwise bytes that a compiler leaves, as believed before


class Scatter(Strict):
    """Standard deviations of logarithms: how much observations, models, sources and cards differ.

    Fitted by bench.calibrate.evidence.scatter."""

    noise: Positive
    """Of an observation of grade A about its prediction."""
    model: Positive
    """Of a model's runs, for what tables leave out about them."""
    source: Positive
    """Of all that one source publishes."""
    linear_architecture: Positive
    linear_card: Positive
    attention_architecture: Positive
    attention_card: Positive
    vae_architecture: Positive
    vae_card: Positive


USUAL = Scatter(
    noise=0.05,
    model=0.12,
    source=0.05,
    linear_architecture=0.12,
    linear_card=0.10,
    attention_architecture=0.20,
    attention_card=0.20,
    vae_architecture=0.30,
    vae_card=0.20,
)
"""As believed before anything is observed."""


@dataclass(frozen=True)
class Effect:
    """A normal number that is added to the log seconds of a term."""

    term: str
    """One of TERMS, or WHOLE."""
    of: str
    """The covariate that multiplies it (Columns.covariate)."""
    family: str | None
    """architecture, card, model or source where each has an effect of its own."""
    level: str | None
    """Which one; None with a family stands for any that was not observed."""
    spread: float

    @property
    def name(self) -> str:
        """For people and files: term, covariate, level."""
        return " / ".join(part for part in (self.term, self.of, self.level) if part)

    def values(self, columns: Columns) -> np.ndarray:
        """(n,) the covariate, 0 outside its level."""
        values = columns.covariate(self.of)
        if self.family is None:
            return values
        return values * (columns.levels[self.family] == self.level)


def templates(scatter: Scatter) -> list[Effect]:
    """Every effect, those of a family once."""
    s = scatter
    rows: list[tuple[str, str, str | None, float]] = [
        ("linear", "all", None, 0.3),
        ("attention", "all", None, 0.4),
        ("vae", "all", None, 0.8),
        ("elementwise", "all", None, 0.9),
        ("fixed", "all", None, 0.8),
        ("offload", "all", None, 1.2),
        ("elementwise", "fused", None, 0.6),
        ("linear", "width", None, 0.1),
        ("linear", "power", None, 0.3),
        ("attention", "power", None, 0.3),
        ("attention", "power of fast", None, 0.3),
        ("linear", "fp8", None, 0.3),
        ("linear", "fp8 fused", None, 0.3),
        ("linear", "all", "architecture", s.linear_architecture),
        ("attention", "all", "architecture", s.attention_architecture),
        ("vae", "all", "architecture", s.vae_architecture),
        ("attention", "fast", "architecture", 0.2),
        ("linear", "all", "card", s.linear_card),
        ("attention", "all", "card", s.attention_card),
        ("vae", "all", "card", s.vae_card),
        ("vae", "all", "model", 0.3),
        (WHOLE, "all", "model", s.model),
        ("fixed", "all", "source", 1.5),
        (WHOLE, "all", "source", s.source),
    ]
    return [Effect(term, of, family, None, spread) for term, of, family, spread in rows]


def observed(columns: Columns, scatter: Scatter) -> list[Effect]:
    """The effects that observations say something of: those of a family once for each of its levels
    there."""
    out = []
    for template in templates(scatter):
        if template.family is None:
            out.append(template)
            continue
        for level in sorted(set(columns.levels[template.family].tolist())):
            out.append(Effect(template.term, template.of, template.family, level, template.spread))
    return out


def expected(columns: Columns) -> np.ndarray:
    """(n, 6) log seconds of each term before anything is observed."""
    logs = columns.at_datasheet + np.array([EXPECTED[term] for term in TERMS])
    gains = [log(FAST_GAIN.get(name, 1.0)) for name in columns.levels["architecture"]]
    logs[:, TERMS.index("attention")] -= columns.fast * np.array(gains)
    logs[:, TERMS.index("elementwise")] += (1.0 - columns.unfused) * log(FUSED_SHARE)
    return logs


@dataclass(frozen=True)
class Design:
    """Which effect is added to which term of which observation."""

    by_term: np.ndarray
    """(n, 6, p)"""
    whole: np.ndarray
    """(n, p)"""

    def log_seconds(self, expected: np.ndarray, effects: np.ndarray) -> tuple[np.ndarray, ...]:
        """(n,) log seconds, (n, 6) share of each term, (n, p) slopes of the former by effects (p,).

        expected: (n, 6), as `expected` gives it."""
        logs = expected + self.by_term @ effects
        largest = logs.max(axis=1, keepdims=True)
        terms = np.exp(logs - largest)
        total = terms.sum(axis=1, keepdims=True)
        shares = terms / total
        slopes = np.einsum("nt,ntp->np", shares, self.by_term) + self.whole
        return largest[:, 0] + np.log(total[:, 0]) + self.whole @ effects, shares, slopes


def design(effects: Sequence[Effect], columns: Columns) -> Design:
    """For observations or for points to predict."""
    by_term = np.zeros((len(columns), len(TERMS), len(effects)))
    whole = np.zeros((len(columns), len(effects)))
    for j, effect in enumerate(effects):
        if effect.term == WHOLE:
            whole[:, j] = effect.values(columns)
        else:
            by_term[:, TERMS.index(effect.term), j] = effect.values(columns)
    return Design(by_term, whole)
