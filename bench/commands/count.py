"""How much work is it?  count."""

from typing import TYPE_CHECKING, Annotated

from bench.commands.parts.options import (
    Json,
    Mesh,
    ModelName,
    Set,
    WorkloadName,
    mesh_of,
    recipe_option,
)
from bench.commands.parts.output import print_json, say, show

if TYPE_CHECKING:
    from bench.core.specs.point import Point


def count(
    model: ModelName,
    workload: WorkloadName,
    recipe: Annotated[
        str, recipe_option("Its dtype decides the bytes; eager, in bf16, by default.")
    ] = "eager",
    overrides: Set = None,
    parallel: Mesh = None,
    as_json: Json = False,
) -> None:
    """Count FLOPs, bytes and parameters of a model at a workload, on meta tensors; three counters
    must agree.  With --parallel: one rank's FLOPs and what it sends, by collective and axis."""
    from bench.core.load import load_point, parse_overrides

    changes = parse_overrides(overrides or [])
    if parallel is not None:
        changes["recipe.parallel"] = mesh_of(parallel)
    point = load_point(model, workload, recipe, changes)
    if point.recipe.on_several_ranks:
        if _lacks_guidance(point):
            say(f"note: {point.workload.name} has no guidance; counted with it, for cfg 2")
            changes["workload.guidance"] = "cfg"
            point = load_point(model, workload, recipe, changes)
        return _count_rank(point, as_json)
    from bench.count.document import count_document
    from bench.count.point import count_point
    from bench.report.progress import Spinner

    with Spinner(f"counting {point.model.name} on meta tensors"):
        document = count_document(point, count_point(point))
    if as_json:
        return print_json(document)
    from bench.report.tables.count import count_table, module_table

    show(count_table(document), module_table(document))


def _lacks_guidance(point: "Point") -> bool:
    """Does cfg ask for two branches, where the workload has one and the recipe did not merge
    them?"""
    of_recipe = point.recipe
    assert of_recipe.parallel is not None
    one_branch = point.workload.guidance == "none" and of_recipe.guidance != "distilled"
    return of_recipe.parallel.cfg > 1 and one_branch


def _count_rank(point: "Point", as_json: bool) -> None:
    """One denoising step on a mesh."""
    from bench.count.parallel.document import rank_document
    from bench.count.parallel.point import count_rank
    from bench.report.progress import Spinner
    from bench.report.tables.count import rank_table, sent_table

    with Spinner(f"counting {point.label}"):
        document = rank_document(point, count_rank(point))
    if as_json:
        return print_json(document)
    show(rank_table(document), sent_table(document))
