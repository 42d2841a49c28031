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
    between = 3 * n + 1  # a border and a space on each side
    if sum(words) + between > console.width:
        between = 2 * (n - 1)
        if sum(words) + between > console.width:
            return paragraphs(out)
        out.box, out.pad_edge, out.padding = None, False, (0, 2, 0, 0)
    longest = [max(map(_cells, (c.header, *c.cells))) for c in out.columns]
    widths = shared(words, longest, console.width - between)
    # Widths, not least widths: rich lets a table grow over the edge to keep the latter.
    for column, width in zip(out.columns, widths, strict=True):
        column.width = width
    return out


def shared(least: list[int], wanted: list[int], room: int) -> list[int]:
    """Widths of columns that together take at most `room`: each its least, and what is left in
    even parts, those that want little first, so that only long columns wrap.  `least` fits."""
    widths, spare = list(least), room - sum(least)
    wanting = {i: max(0, want - least[i]) for i, want in enumerate(wanted)}
    for place, i in enumerate(sorted(wanting, key=lambda i: wanting[i])):
        given = min(wanting[i], spare // (len(least) - place))
        widths[i] += given
        spare -= given
    return widths


def _cells(text: RenderableType) -> int:
    """Of a terminal, on one line."""
    return Text(str(text)).cell_len


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
