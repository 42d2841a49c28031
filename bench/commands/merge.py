"""Several results as one.  merge."""

from pathlib import Path
from typing import Annotated

import typer

from bench.commands.parts.options import Json
from bench.commands.parts.output import print_json, say, show
from bench.core.errors import UserError

ResultDirs = Annotated[
    list[Path],
    typer.Argument(metavar="RESULT_DIR...", help="Directories made by `ldt-bench run` or `merge`."),
]
Out = Annotated[
    Path | None, typer.Option(help="Where the merged result goes; beside the first by default.")
]
MixEnvironments = Annotated[
    bool,
    typer.Option(
        "--mix-environments",
        help="Merge unlike kinds of card, dtypes and versions of the code, with a warning.",
    ),
]


def merge(
    result_dirs: ResultDirs,
    out: Out = None,
    mix_environments: MixEnvironments = False,
    as_json: Json = False,
) -> None:
    """Make one result of several: shards of a suite, or the same suite on several cards.

    The order does not matter, and merging a result again changes nothing. A point that two cards
    measured is kept twice, and the cards are laid beside one another (`cards`)."""
    from bench.calibrate.cards import cards_of
    from bench.report.tables.doctor import cards_document, cards_table
    from bench.results.manifest import write_manifest
    from bench.results.merge import merge as merge_results
    from bench.results.store import read_records

    if len(result_dirs) < 2:
        raise UserError("merge takes two results or more")
    merged = merge_results(result_dirs, out, mix=mix_environments, kinds=mix_environments)
    write_manifest(merged)
    records = read_records(merged)
    compared = cards_of(records)
    if as_json:
        return print_json(
            {
                "result_dir": str(merged),
                "records": len(records),
                "cards": cards_document(compared),
            }
        )
    say(f"merged result: {merged}")
    if len(compared.cards) > 1:
        show(cards_table(compared, records))
    typer.echo(f"{len(records)} records; fit and report them: ldt-bench calibrate {merged}")
