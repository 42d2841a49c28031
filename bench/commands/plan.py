"""Which points to measure for one wanted prediction: plan."""

from pathlib import Path
from typing import Annotated

import typer

from bench.commands.options import Device, Json, WorkloadName, check_device, check_gpu, completes
from bench.commands.output import print_json, show
from bench.core.errors import EnvironmentFault, UserError


def plan(
    wanted: Annotated[
        str,
        typer.Option(
            "--for", help="The model to be predicted, a name in configs/models.", show_default=False
        ),
    ],
    workload: WorkloadName,
    budget: Annotated[str, typer.Option(help="Time to measure in, e.g. 8m.")] = "8m",
    suite: Annotated[
        str | None,
        typer.Option(
            help="Whose points to choose from; calibrate-cpu on a CPU, h100 on a GPU by default."
        ),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="By default the one that the suite's headline has.")
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(
            help="Plan for this card of configs/gpus, not the one here.",
            autocompletion=completes("gpus"),
        ),
    ] = None,
    device: Device = None,
    calibration: Annotated[
        Path | None, typer.Option(help="A result to start from; else datasheet and priors.")
    ] = None,
    write: Annotated[
        Path | None, typer.Option(help="Write the chosen points as a suite, to be run.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Choose the points whose measurement narrows one prediction most for its time; nothing is
    measured here."""
    check_device(device)
    from bench.core.load import load, load_point
    from bench.core.specs.suite import Suite
    from bench.core.units import parse_duration
    from bench.measure.worker.process import Worker
    from bench.report.progress import Spinner
    from bench.report.tables.planning import design_line, design_table
    from bench.results.store import disk_faults, write_whole
    from bench.run.choose import chosen_suite, design, pool
    from bench.run.forecast import Forecaster

    check_gpu(gpu)
    budget_s = parse_duration(budget)
    with Worker("cpu" if gpu is not None else device) as worker, Spinner("counting") as spinner:
        here = gpu or worker.environment.gpu
        loaded = load(Suite, suite or ("calibrate-cpu" if here == "cpu" else "h100"))
        recipe = recipe or loaded.headline.recipe
        point = load_point(wanted, workload, recipe)
        entries = pool(loaded, recipe)
        forecast = Forecaster(loaded, Path("results"), calibration)
        found = design(
            point,
            entries,
            forecast,
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
    document = found | {"for": point.label, "gpu": here, "suite": loaded.name, "budget_s": budget_s}
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
