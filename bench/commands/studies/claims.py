"""Published claims held against ours: claims."""

from pathlib import Path
from typing import Annotated

import typer

from bench.commands.parts.options import Json
from bench.commands.parts.output import print_json, say, show
from bench.core.errors import one_line


def claims(
    calibration: Annotated[
        Path | None, typer.Option(help="A result directory: it judges claims about its own GPU.")
    ] = None,
    claim: Annotated[
        list[str] | None,
        typer.Option(
            help=(
                "A name in configs/claims, a YAML file, or an id such as A11; all by default. "
                " Repeatable."
            )
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit code 1 where a claim is off.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Hold published claims against counts and a calibration: holds, off by x, or cannot tell, and
    why."""
    from bench.report.progress import Spinner
    from bench.report.tables.claims import claims_document, claims_lines, claims_tables
    from bench.studies.claims.ledger import evidence_of, ledger
    from bench.studies.claims.published import published_shelf
    from bench.studies.pencil.analytic import published_rows, rows_from

    with Spinner(
        "counting, where a claim is about this card"
        if calibration
        else "holding claims against counts"
    ):
        evidence = None if calibration is None else evidence_of(calibration)
        judged = ledger(claim or [], rows_from, evidence, published_shelf(published_rows))
    if as_json:
        print_json(claims_document(judged))
    else:
        show(*claims_tables(judged))
        typer.echo("\n".join(map(one_line, claims_lines(judged))))
        for warning in dict.fromkeys(w for j in judged.judged for w in j.finding.warnings):
            say(f"warning: {one_line(warning)}")
    return 1 if strict and any(j.is_off for j in judged.judged) else 0
