"""Tables on a narrow terminal: no word and no number is broken where another layout spares it.

Full box, then columns two spaces apart, then a paragraph for each row: the first that fits the
width with every word whole.
"""

from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

LONGEST_WORD = 28
"""Longer ones (paths, class names, lists in brackets) may be broken."""


def fitted(table: RenderableType, console: Console) -> RenderableType:
    """The table, laid out for the console's width; anything else as it is."""
    if not isinstance(table, Table) or not table.columns:
        return table
    # `stage` and the like are never wrapped: their whole cell is one word.
    words = [
        max(
            Measurement.get(console, console.options, cell).minimum
            if not column.no_wrap
            else len(str(cell))
            for cell in (column.header, *column.cells)
        )
        for column in table.columns
    ]
    words = [
        min(word, LONGEST_WORD) if not column.no_wrap else word
        for word, column in zip(words, table.columns, strict=True)
    ]
    n = len(words)
    if sum(words) + 3 * n + 1 > console.width:  # a border and a space on each side
        if sum(words) + 2 * (n - 1) > console.width:
            return paragraphs(table)
        table.box, table.pad_edge, table.padding = None, False, (0, 2, 0, 0)
    for column, word in zip(table.columns, words, strict=True):
        column.min_width = word
    return table


def paragraphs(table: Table) -> Group:
    """Each row as lines of `column: value`, its first cell leading; empty cells left out."""
    head = [str(column.header) for column in table.columns]
    rows = zip(*(map(str, column.cells) for column in table.columns), strict=True)
    texts = [Text(str(table.title), style="bold")] if table.title else []
    for first, *others in rows:
        texts.append(Text(f"{head[0]}: {first}" if head[0] else first))
        texts += [
            Text(f"  {name}: {cell}")
            for name, cell in zip(head[1:], others, strict=True)
            if cell not in ("", "–")
        ]
    return Group(*texts, Text())
