"""The look of a table in a terminal."""

import io

from rich.console import Console

from bench.report.render import to_terminal
from bench.report.tables.table import Table


def shown(table: Table, width: int = 120) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(to_terminal(table))
    return out.getvalue()
