"""What others published of cards, as evidence that judges claims."""

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from bench.calibrate.evidence.card import read_card, row_predictions
from bench.calibrate.evidence.forecast import as_estimate, forecast
from bench.core.errors import UserError
from bench.core.quantity import Quantity
from bench.core.row import Row
from bench.studies.claims.verdict import Evidence, Finding, Shelf

if TYPE_CHECKING:
    from bench.calibrate.predict import Estimate
    from bench.core.specs.point import Point

RECIPE = "eager-bf16"  # attention auto: what PyTorch picks on the card today
PublishedRows = Callable[[str], tuple[list[Row], Quantity, list[str]]]
"""The published estimate's rows by a card's evidence, its minutes of video per GPU-hour, and
warnings: bench.studies.pencil.analytic.published_rows."""


def published_shelf(rows: PublishedRows) -> Shelf:
    """Every card that something is published of, and every row of the shipped tables."""
    return Shelf(published=cache(lambda gpu: _evidence(gpu, rows)), left_out=left_out)


def left_out(row: str) -> Finding | None:
    """A published row, predicted by the fit of all others."""
    found = row_predictions().get(row)
    if found is None:
        return None
    error = found.held_out_error
    return Finding(
        Quantity(found.seconds, found.low, found.high, provenance="fitted"),
        f"predicted from the other published rows, this one left out (held-out error {error:.1%} on"
        f" {found.gpu})",
    )


def _evidence(gpu: str, rows: PublishedRows) -> Evidence | None:
    """None for a card that the shipped evidence says nothing of."""
    try:
        card = read_card(gpu)
    except UserError:
        return None

    def estimate(point: "Point") -> "Estimate":
        return as_estimate(forecast(point, gpu))

    def chain() -> tuple[list[Row], Finding]:
        found, minutes, warnings = rows(gpu)
        why = f"by {_words(card.n)}, FlashAttention-2 to compiled fast attention"
        return found, Finding(minutes, why.format(gpu=gpu), warnings=tuple(warnings))

    return Evidence(gpu, (RECIPE,), estimate, _words(card.n), chain)


def _words(n: int) -> str:
    return f"{n} latencies that others published of {{gpu}}" if n else "its siblings' latencies"
