"""How much work is it?  count."""

from typing import Annotated

from bench.commands.options import Json, ModelName, Set, WorkloadName, recipe_option
from bench.commands.output import print_json, show


def count(
    model: ModelName,
    workload: WorkloadName,
    recipe: Annotated[
        str, recipe_option("Its dtype decides the bytes; eager, in bf16, by default.")
    ] = "eager",
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
