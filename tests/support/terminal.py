"""What a table looks like in a terminal."""

import io

from rich.console import Console


def shown(renderable, width: int = 120) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(renderable)
    return out.getvalue()
