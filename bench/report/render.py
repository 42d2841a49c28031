"""The three forms of a table: a terminal's, Markdown's and a page's."""

import re
from collections.abc import Iterable
from dataclasses import replace

from markupsafe import Markup
from rich.table import Table as TerminalTable
from rich.text import Text

from bench.core.errors import one_line
from bench.report.tables.table import PROVENANCES, Cell, Column, Table

TAG = re.compile(r"<(?=[a-zA-Z/!?])")
"""What Markdown would take for the beginning of one."""
LONGEST_NUMBER = 30  # a longer text in a column of numbers is a reason, which wraps


def to_terminal(table: Table) -> TerminalTable:
    """For rich.  Columns of detail are left out.

    Names are the user's: rich takes [x] for no markup and :x: for no picture, and a control
    character is shown."""
    shown = [i for i, column in enumerate(table.columns) if not column.detail]
    out = TerminalTable(
        title=_plain(_heading(table, shown)), title_justify="left", header_style="bold"
    )
    for column in (table.columns[i] for i in shown):
        out.add_column(
            _plain(column.title),
            justify="right" if column.number else "left",
            overflow="fold",
            no_wrap=column.title == "stage",
        )
    for row in table.texts:
        out.add_row(*(_plain(row[i]) for i in shown))
    return out


def _heading(table: Table, shown: list[int]) -> str:
    """The title, the provenance of the numbers where every column has one, the note."""
    columns = (table.columns[i] for i in shown)
    provenances = dict.fromkeys(c.provenance for c in columns if c.number)
    words = "" if None in provenances else ", ".join(provenances)
    said = "; ".join(filter(None, (words, table.note)))
    return f"{table.title} ({said})" if said else table.title


def _plain(text: str) -> Text:
    return Text(one_line(text))


def to_markdown(table: Table) -> str:
    """The table without its title; nothing without a row."""
    if not table.rows:
        return ""
    rules = ("---:" if c.number else "---" for c in table.columns)
    head = [_line(map(_markdown_heading, table.columns)), f"|{'|'.join(rules)}|"]
    rows = [_line(_markdown_cell(cell) for cell in row) for row in table.rows]
    return "\n".join([*head, *rows])


def _markdown_cell(cell: Cell) -> str:
    return cell.text if cell.link is None else f"[{cell.text}]({cell.link})"


def _markdown_heading(column: Column) -> str:
    """'median (measured)', 'speed-up (interval; measured)'."""
    if column.provenance is None:
        return column.title
    if column.title.endswith(")"):
        return f"{column.title[:-1]}; {column.provenance})"
    return f"{column.title} ({column.provenance})"


def _line(texts: Iterable[str]) -> str:
    return f"| {' | '.join(map(markdown_text, texts))} |"


def markdown_text(text: object) -> str:
    """On one line, no end of a cell, and no HTML: a name can be anything."""
    return TAG.sub("&lt;", one_line(str(text)).replace("|", "\\|"))


def to_html(table: Table) -> Markup:
    """With the provenance of each number on hover and its value as the key to sort by; nothing
    without a row."""
    if not table.rows:
        return Markup("")
    caption = f"{table.title} ({table.note})" if table.note else table.title
    lines = [
        Markup('<div class="scroll" role="region" tabindex="0" aria-label="{}">').format(
            table.title
        ),
        Markup("<table>\n<caption><span>{}</span></caption>").format(caption),
        Markup("<thead><tr>\n{}\n</tr></thead>").format(_joined(map(_th, table.columns))),
        Markup("<tbody>\n{}\n</tbody>").format(
            _joined(_tr(table.columns, row) for row in table.rows)
        ),
        Markup("</table>\n</div>"),
    ]
    return _joined(lines)


def brief(table: Table) -> Table:
    """Without its columns of detail, as a terminal has it."""
    kept = [i for i, column in enumerate(table.columns) if not column.detail]
    rows = [[row[i] for i in kept] for row in table.rows]
    return replace(table, columns=[table.columns[i] for i in kept], rows=rows)


def html_tag(provenance: str) -> Markup:
    """The word for a provenance, with its meaning on hover."""
    return Markup('<span class="tag {0}" title="{1}">{0}</span>').format(
        provenance, PROVENANCES[provenance]
    )


def _joined(parts: Iterable[Markup]) -> Markup:
    return Markup("\n").join(parts)


def _th(column: Column) -> Markup:
    return Markup('<th scope="col"{}><span class="title">{}</span>{}</th>').format(
        Markup(' class="n"') if column.number else "",
        column.title,
        Markup(" ") + html_tag(column.provenance) if column.provenance else "",
    )


def _tr(columns: list[Column], row: list[Cell]) -> Markup:
    first, *others = row
    key = _attribute("data-key", first.value if columns[0].number else None)
    head = Markup('<th scope="row"{}>{}</th>').format(key, first.text)
    cells = [_td(c, cell) for c, cell in zip(columns[1:], others, strict=True)]
    return Markup("<tr>{}</tr>").format(Markup("").join([head, *cells]))


def _td(column: Column, cell: Cell) -> Markup:
    origin = ": ".join(filter(None, (cell.provenance or column.provenance, cell.how)))
    reason = cell.value is None and len(cell.text) > LONGEST_NUMBER
    attributes = [
        Markup(' class="{}"').format("n reason" if reason else "n") if column.number else "",
        _attribute("data-key", cell.value if column.number else None),
        _attribute("title", origin if origin and cell.text else None),
    ]
    text = cell.text
    if cell.link is not None:
        text = Markup('<a href="{}">{}</a>').format(cell.link, cell.text)
    elif column.number:  # an interval may go to the next line, whole
        text = Markup(" <wbr>(").join(cell.text.split(" ("))
    return Markup("<td{}>{}</td>").format(Markup("").join(attributes), text)


def _attribute(name: str, value: object) -> Markup:
    return Markup("") if value is None else Markup(' {}="{}"').format(name, value)
