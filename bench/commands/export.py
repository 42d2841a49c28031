"""A result for other tools.  export."""

from pathlib import Path
from typing import Annotated

import typer

from bench.commands.parts.options import Json, ResultDir
from bench.commands.parts.output import print_json

To = Annotated[
    str,
    typer.Option(
        "--to",
        help="csv, parquet, latex, or pack: a verified result in one archive, to contribute.",
        show_default=False,
    ),
]
Out = Annotated[
    Path | None, typer.Option(help="The file; by default named after the result, here.")
]


def export(result_dir: ResultDir, to: To, out: Out = None, as_json: Json = False) -> None:
    """Write a result's timed stages as a flat table, one row each (docs/export.md).

    Units are in the columns' names. `pack` verifies the result first, and refuses one whose figures
    do not follow from its samples."""
    from bench.core.errors import UserError, nearest
    from bench.report.export.write import ENDINGS
    from bench.report.export.write import export as write

    if to not in ENDINGS:
        raise UserError(f"--to {to!r} is not one of {', '.join(ENDINGS)}{nearest(to, ENDINGS)}")
    path = out or Path(result_dir.absolute().name + ENDINGS[to])
    written = write(result_dir, to, path)
    if as_json:
        return print_json({"path": str(path), "written": written})
    typer.echo(f"{path}: {written} {'files' if to == 'pack' else 'rows'}")
