"""Which presets are there?  list."""

from typing import Annotated

import typer

from bench.commands.parts.options import Json
from bench.commands.parts.output import print_json, show


def list_presets(
    kind: Annotated[
        str | None,
        typer.Argument(
            help="models, workloads, recipes, gpus, suites or claims.",
            autocompletion=lambda: ["models", "workloads", "recipes", "gpus", "suites", "claims"],
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the presets."""
    from bench.core.load import load
    from bench.core.presets import KINDS, names
    from bench.report.listing import describe

    kinds = [kind] if kind else list(KINDS)
    # A recipe goes by its file's name here: records add its dtype.
    entries = [
        describe(k, load(KINDS[k], name)) | {"name": name} for k in kinds for name in names(k)
    ]
    if as_json:
        return print_json(entries)
    from bench.report.tables.table import table

    show(
        *(
            table(
                k,
                ["name", "description", "summary"],
                [(e["name"], e["description"], e["summary"]) for e in entries if e["kind"] == k],
            )
            for k in kinds
        )
    )
