"""Has what a model computes changed?  check."""

from pathlib import Path
from typing import Annotated

import typer

from bench.commands.parts.options import Json
from bench.commands.parts.output import print_json, show

BaselineFile = Annotated[
    Path, typer.Argument(metavar="BASELINE", help="A JSON file that `check --add` wrote.")
]
Add = Annotated[
    list[str] | None,
    typer.Option(
        metavar="MODEL:WORKLOAD[:RECIPE]",
        help="Count this point and write it into BASELINE. Repeatable.",
        show_default=False,
    ),
]
Markdown = Annotated[
    Path | None, typer.Option(help="Write the verdict there too, for a pull request.")
]


def check(
    baseline: BaselineFile, add: Add = None, markdown: Markdown = None, as_json: Json = False
) -> int | None:
    """Hold FLOPs, parameters and modelled bytes of named points to a committed baseline, exactly.

    Needs no GPU, and seconds. MODEL may be a YAML file of your own. Exit code 1 where a number
    differs; --add writes the baseline instead."""
    from bench.report.progress import Spinner
    from bench.report.tables.comparison import changes_document, changes_markdown, changes_table
    from bench.results.store import disk_faults
    from bench.studies.gate.baseline import (
        counted_point,
        parse_point,
        read_baseline,
        write_baseline,
    )
    from bench.studies.gate.changes import changes

    if add:
        asked = [parse_point(text) for text in add]
        before = read_baseline(baseline).points if baseline.is_file() else []
        with Spinner("counting"):
            written = write_baseline(baseline, [*before, *(counted_point(*p) for p in asked)])
        if as_json:
            return print_json({"path": str(baseline), "points": len(written.points)})
        typer.echo(f"{baseline}: {len(written.points)} points")
        return None
    held = read_baseline(baseline)
    with Spinner("counting"):
        found = changes(held)
    if markdown is not None:
        with disk_faults(markdown, measured=False):
            markdown.write_text(changes_markdown(held, found), encoding="utf-8")
    if as_json:
        print_json(changes_document(held, found))
    else:
        if found:
            show(changes_table(held, found))
        typer.echo(f"{'FAIL' if found else 'ok'}: {len(held.points)} points, {len(found)} changes")
    return 1 if found else None
