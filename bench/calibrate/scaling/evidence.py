"""What published rows on several cards say of a mesh: configs/evidence/scaling.json."""

import functools
import math
from importlib import resources

from bench.calibrate.evidence.card import FOLDER
from bench.calibrate.scaling.model import NAMES
from bench.core.specs.gpu import Link
from bench.results.base import Strict
from models.parallel.spec import Parallel

SCALING = "scaling.json"  # within configs/evidence


class HeldOutScaling(Strict):
    """How wrong seconds on several cards were, of rows that the fit never saw."""

    by: str
    own_base: bool
    """Of rows whose source published one card too; else one card was a forecast."""
    cards: int | None
    """null: any number."""
    n: int
    error: float
    """Mean |predicted / measured - 1|."""
    constant: float | None
    """The same by the mean efficiency of other rows on as many cards."""
    inside: float
    """Share inside the 90 % interval."""


class ScalingRow(Strict):
    """One published row."""

    id: str
    gpu: str
    model: str
    source: str
    size: str
    forwards: float
    """Of one video."""
    mesh: str
    cards: int
    axes: list[str]
    link: str
    own_base: bool
    one_card_s: float
    seconds: float
    fitted_s: float
    held_out_s: float
    """By a fit without its source."""


class ScalingEvidence(Strict):
    """configs/evidence/scaling.json."""

    values: dict[str, float]
    scatter: float
    """Of log seconds, of a row of a source that the fit never saw."""
    n: int
    n_own_base: int
    sources: list[str]
    held_out: list[HeldOutScaling]
    rows: list[ScalingRow]
    left_out: dict[str, str]

    @property
    def ordered(self) -> list[float]:
        """Of model.NAMES."""
        return [self.values[name] for name in NAMES]

    def has_seen(self, parallel: Parallel, link: Link) -> bool:
        """Has any row such axes, as many cards, and such a link?"""
        rows = [row for row in self.rows if row.link == link.kind]
        axes = {axis for row in rows for axis in row.axes}
        most = max((row.cards for row in rows), default=1)
        return parallel.of_one_sample <= most and axes >= set(axes_of(parallel))

    def error_on(self, cards: int, by: str = "source") -> HeldOutScaling | None:
        """Of as many cards, else of the next number that rows have."""
        found = [h for h in self.held_out if h.by == by and h.own_base and h.cards is not None]
        return min(found, key=lambda h: abs(math.log(h.cards / cards)), default=None)


@functools.cache
def scaling_evidence() -> ScalingEvidence:
    """What the package ships."""
    text = (resources.files("configs") / FOLDER / SCALING).read_bytes()
    return ScalingEvidence.model_validate_json(text)


def axes_of(parallel: Parallel) -> list[str]:
    """Those that share one sample."""
    return [axis for axis, n in parallel.degrees.items() if n > 1 and axis != "data"]
