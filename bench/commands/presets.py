"""What there is and what it counts: list, count."""

from typing import Annotated

import typer

from bench.commands.options import Json, ModelName, Set, WorkloadName, completes
from bench.commands.output import print_json, show


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
    from bench.core.load import KINDS, load, names
    from bench.report.listing import describe

    kinds = [kind] if kind else list(KINDS)
    entries = [describe(k, load(KINDS[k], name)) for k in kinds for name in names(k)]
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


def count(
    model: ModelName,
    workload: WorkloadName,
    recipe: Annotated[
        str, typer.Option(help="Its dtype decides the bytes.", autocompletion=completes("recipes"))
    ] = "eager-bf16",
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Count FLOPs, bytes and parameters of a model at a workload, on meta tensors; three counters
    must agree."""
    from bench.core.load import load_point, parse_overrides

    point = load_point(model, workload, recipe, parse_overrides(overrides or []))
    from bench.count.document import count_document
    from bench.count.point import count_point
    from bench.report.progress import Spinner

    with Spinner(f"counting {point.model.name} on meta tensors"):
        document = count_document(point, count_point(point))
    if as_json:
        return print_json(document)
    from bench.report.tables.count import count_table, module_table

    show(count_table(document), module_table(document))
