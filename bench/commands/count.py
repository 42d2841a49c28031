"""How much work is it?  count."""

from typing import TYPE_CHECKING, Annotated, Any

from bench.commands.options import (
    Json,
    Mesh,
    ModelName,
    Set,
    WorkloadName,
    mesh_of,
    recipe_option,
)
from bench.commands.output import print_json, say, show

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

    point = load_point(model, workload, recipe, parse_overrides(overrides or []))
    if parallel is not None:
        return _count_rank(point, mesh_of(parallel), as_json)
    from bench.count.document import count_document
    from bench.count.point import count_point
    from bench.report.progress import Spinner

    with Spinner(f"counting {point.model.name} on meta tensors"):
        document = count_document(point, count_point(point))
    if as_json:
        return print_json(document)
    from bench.report.tables.count import count_table, module_table

    show(count_table(document), module_table(document))


def _count_rank(point: "Point", degrees: dict[str, Any], as_json: bool) -> None:
    """One denoising step on a mesh."""
    from bench.count.parallel.document import rank_document
    from bench.count.parallel.point import count_rank
    from bench.report.progress import Spinner
    from bench.report.tables.count import rank_table, sent_table
    from models.parallel.spec import Parallel

    mesh = Parallel(**degrees)
    recipe = point.recipe.model_copy(update={"parallel": mesh})
    workload = point.workload
    if mesh.cfg > 1 and workload.guidance == "none" and recipe.guidance != "distilled":
        say(f"note: {workload.name} runs without guidance; counted with it, as cfg 2 asks for it")
        workload = workload.model_copy(update={"guidance": "cfg"})
    changed = point.model_copy(update={"recipe": recipe, "workload": workload})
    with Spinner(f"counting {point.model.name} on {mesh.words()}"):
        document = rank_document(changed, count_rank(changed))
    if as_json:
        return print_json(document)
    show(rank_table(document), sent_table(document))
