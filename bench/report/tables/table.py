"""A table: columns that say their provenance, cells that keep the value beside its text.

A function of each subject builds its tables from records or a document; bench.report.render shows
any table on a terminal, in Markdown and in HTML.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.core.quantity import Quantity
from bench.report.numbers import Show, three

DASH = "–"
"""The text of a cell that has no value."""

PROVENANCES = {
    "claimed": "published by somebody else, with its source",
    "counted": "from the model's own operators; exact, no device needed",
    "measured": "timed or read on this device, with n and an interval",
    "fitted": "by the cost model, from this result's measurements, with its held-out error",
    "extrapolated": "fitted, but outside the measured range; the warnings say by how much",
}
"""Each word for the origin of a number, and its meaning."""


@dataclass(frozen=True)
class Column:
    """A heading.  `provenance` holds for its numbers, unless a cell has its own."""

    title: str
    number: bool = False
    provenance: str | None = None
    detail: bool = False
    """A terminal is narrow and leaves this column out."""


@dataclass(frozen=True)
class Cell:
    """A text, the value that it shows, and the origin of that value."""

    text: str
    value: float | None = None
    """In its base unit; a page sorts by it."""
    how: str | None = None
    """How this number came to be: a page says so on hover."""
    provenance: str | None = None
    """Where it differs from the column's."""
    link: str | None = None
    """An address: a page and Markdown link the text to it."""


@dataclass(frozen=True)
class Table:
    """A title, a note that holds for all rows, and rows whose first cell names them."""

    title: str
    columns: list[Column]
    rows: list[list[Cell]]
    note: str = ""

    @property
    def texts(self) -> list[list[str]]:
        return [[cell.text for cell in row] for row in self.rows]


def table(
    title: str,
    columns: Sequence[Column | str],
    rows: Iterable[Iterable[Cell | str | None]],
    note: str = "",
) -> Table:
    """A string is a column or a cell of words; None is a cell without a value."""
    return Table(
        title,
        [Column(c) if isinstance(c, str) else c for c in columns],
        [[_cell(c) for c in row] for row in rows],
        note,
    )


def _cell(content: Cell | str | None) -> Cell:
    if content is None:
        return Cell(DASH)
    return Cell(content) if isinstance(content, str) else content


def numbers(title: str, provenance: str | None = None, *, detail: bool = False) -> Column:
    """A column of numbers; without a provenance, each cell or the title gives it."""
    return Column(title, True, provenance, detail)


def claimed(title: str, *, detail: bool = False) -> Column:
    return numbers(title, "claimed", detail=detail)


def counted(title: str, *, detail: bool = False) -> Column:
    return numbers(title, "counted", detail=detail)


def measured(title: str, *, detail: bool = False) -> Column:
    return numbers(title, "measured", detail=detail)


def fitted(title: str, *, detail: bool = False) -> Column:
    return numbers(title, "fitted", detail=detail)


def number(
    value: float | None, show: Show = three, how: str | None = None, provenance: str | None = None
) -> Cell:
    """A number as `show` writes it; a dash for None."""
    return Cell(DASH if value is None else show(value), value, how, provenance)


def span(low: float, high: float, show: Show = three, how: str | None = None) -> Cell:
    """'0.39 to 0.45'; sorted by its lower end."""
    return Cell(f"{show(low)} to {show(high)}", low, how)


def quantity(
    q: Quantity | Mapping[str, float] | None, show: Show = three, how: str | None = None
) -> Cell:
    """'0.418 (0.39 to 0.45)'; a dash for None.  A document of --json holds a quantity as a dict."""
    if q is None:
        return Cell(DASH)
    known = q if isinstance(q, Quantity) else Quantity(q["value"], q["low"], q["high"])
    text = f"{show(known.value)} ({show(known.low)} to {show(known.high)})"
    return Cell(text, known.value, how)
