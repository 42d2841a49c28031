"""Tables on a narrow terminal: no word and no number is broken where another layout spares it.

Full box, then columns two spaces apart, then a paragraph for each row: the first that fits the
width with every word whole.
"""

from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table as TerminalTable
from rich.text import Text

from bench.report.render import to_terminal
from bench.report.tables.table import Table

LONGEST_WORD = 28
"""Longer ones (paths, class names, lists in brackets) may be broken."""


def fitted(table: Table, console: Console) -> RenderableType:
    """The table, laid out for the console's width."""
    out = to_terminal(table)
    if not out.columns:
        return out
    # A cell of a column that does not wrap (`stage`) is one word.
    words = [
        max(
            len(str(cell))
            if column.no_wrap
            else min(LONGEST_WORD, Measurement.get(console, console.options, cell).minimum)
            for cell in (column.header, *column.cells)
        )
        for column in out.columns
    ]
    n = len(words)
    if sum(words) + 3 * n + 1 > console.width:  # a border and a space on each side
        if sum(words) + 2 * (n - 1) > console.width:
            return paragraphs(out)
        out.box, out.pad_edge, out.padding = None, False, (0, 2, 0, 0)
    for column, word in zip(out.columns, words, strict=True):
        column.min_width = word
    return out


def paragraphs(table: TerminalTable) -> Group:
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
