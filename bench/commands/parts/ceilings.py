"""What a device reaches: doctor --ceilings."""

import typer

from bench.commands.parts.output import print_json, say, show
from bench.core.errors import EnvironmentFault, UserError


def measure_ceilings(
    device: str | None, recipes: list[str] | None, assignments: list[str] | None, as_json: bool
) -> None:
    """GEMM, attention, 3D convolution, and memory by size, in the dtypes and with the attention
    backends of `recipes`: eager by default, bf16 on a GPU and fp32 on a CPU."""
    from bench.core.load import datasheet, load, parse_overrides
    from bench.core.specs.recipe import Recipe
    from bench.measure.worker.process import JobFailed, Worker
    from bench.report.documents import ceilings_document
    from bench.report.progress import Spinner
    from bench.report.tables.doctor import bandwidth_table, ceilings_table, gemm_ceiling
    from bench.run.suite import CEILINGS_SAMPLING, ceilings_only

    changes = {}
    for path, value in parse_overrides(assignments or []).items():
        if not path.startswith("recipe."):
            raise UserError(f"--set {path}: --ceilings takes fields of the recipe, recipe.dtype")
        changes[path.removeprefix("recipe.")] = value
    loaded = [load(Recipe, name, changes) for name in recipes or []]
    with Worker(device) as worker:
        if not loaded:
            dtype = "bf16" if worker.environment.device == "cuda" else "fp32"
            loaded = [load(Recipe, "eager", {"dtype": dtype} | changes)]
        try:
            with Spinner("measuring ceilings") as spinner:
                record = ceilings_only(
                    worker, loaded, CEILINGS_SAMPLING, lambda stage, samples: spinner.say(stage)
                )
        except JobFailed as failure:
            raise EnvironmentFault(f"ceilings: {failure.outcome}: {failure.reason}") from None
    if as_json:
        return print_json(ceilings_document(record))
    show(ceilings_table(record, datasheet(record.environment.gpu)), bandwidth_table(record))
    typer.echo(gemm_ceiling(record))
    if record.reason:
        say(f"warning: {record.reason}")
