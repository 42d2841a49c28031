"""Which points are worth measuring for one prediction?  run --choose-for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from bench.commands.options import duration
from bench.commands.output import print_json, show
from bench.core.errors import EnvironmentFault, UserError

BUDGET = "8m"


@dataclass(frozen=True)
class Wanted:
    """The point that is to be predicted."""

    model: str
    workload: str | None
    recipe: str | None
    """None: the one of the suite's headline."""
    overrides: list[str]


def choose(
    wanted: Wanted,
    suite: str | None,
    budget: str,
    device: str | None,
    gpu: str | None,
    calibration: Path | None,
    write: Path | None,
    as_json: bool,
) -> None:
    """Choose the points of a suite whose measurement narrows one prediction most for its time;
    nothing is measured here.  suite: calibrate-cpu on a CPU and h100 on a GPU by default;
    calibration: a result to start from, else datasheet and priors; write: a YAML to be run."""
    from bench.report.tables.planning import design_line, design_table
    from bench.results.store import disk_faults, write_whole
    from bench.run.choose import chosen_suite

    if wanted.workload is None:
        raise UserError("--choose-for needs --workload, a name in configs/workloads")
    budget_s = duration(budget, "--budget")
    document, loaded, entries = _designed(wanted, suite, budget_s, device, gpu, calibration)
    if write is not None:
        chosen = [entries[row["index"]] for row in document["points"]]
        if not chosen:
            raise UserError(
                f"--budget {budget}: no point of {loaded.name} fits; the cheapest takes "
                f"{document['cheapest_s']:.0f} s"
            )
        with disk_faults(write):
            write_whole(write, chosen_suite(loaded, chosen, document))
    if as_json:
        return print_json(document)
    show(design_table(document))
    typer.echo(design_line(document))
    if write is not None:
        typer.echo(f"run it: ldt-bench run {write}")


def _designed(
    wanted: Wanted,
    suite: str | None,
    budget_s: float,
    device: str | None,
    gpu: str | None,
    calibration: Path | None,
) -> tuple[dict[str, Any], Any, list[Any]]:
    """The document, the suite that was chosen from, and its points as entries of their own."""
    from bench.core.load import load, load_point, parse_overrides
    from bench.core.presets import is_path
    from bench.core.specs.suite import Suite
    from bench.measure.worker.process import Worker
    from bench.report.progress import Spinner
    from bench.run.choose import design, pool
    from bench.run.forecast import Forecaster

    assert wanted.workload is not None
    with Worker("cpu" if gpu is not None else device) as worker, Spinner("counting") as spinner:
        here = gpu or worker.environment.gpu
        loaded = load(Suite, suite or ("calibrate-cpu" if here == "cpu" else "h100"))
        recipe = wanted.recipe or loaded.headline.recipe
        overrides = parse_overrides(wanted.overrides)
        point = load_point(wanted.model, wanted.workload, recipe, overrides)
        entries = pool(loaded, recipe if is_path(recipe) else point.recipe.name)
        found = design(
            point,
            entries,
            Forecaster(loaded, Path("results"), calibration),
            worker,
            budget_s,
            gpu=gpu,
            probe=gpu is None,
            watch=lambda done: spinner.at(done, len(entries)),
        )
    if found is None:
        raise EnvironmentFault(
            f"nothing is known of {here}: no datasheet, and its quick probe failed; give"
            " --calibration"
        )
    about = {"for": point.label, "gpu": here, "suite": loaded.name, "budget_s": budget_s}
    return found | about, loaded, entries
