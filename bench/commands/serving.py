"""What one device serves: requests of mixed shapes, batched or not."""

import json
from pathlib import Path
from typing import Annotated

import typer

from bench.commands.options import Device, Json, Set, check_device
from bench.commands.output import print_json, say, show
from bench.core.errors import EnvironmentFault, UserError

SERVED = ("tiny-clip", "tiny-wide", "tiny-tall")


def serve_sim(
    model: Annotated[
        str, typer.Argument(help="An own model: a name in configs/models, or a YAML file.")
    ] = "tiny",
    workload: Annotated[
        list[str],
        typer.Option(
            "--workload",
            "-w",
            help="A shape that is asked for; repeatable, twice the same for twice the share.",
        ),
    ] = SERVED,
    recipe: Annotated[str, typer.Option(help="How it is run.")] = "eager-fp32",
    device: Device = None,
    max_batch: Annotated[
        int, typer.Option(help="Requests in a batch of one shape.", min=1, max=64)
    ] = 4,
    token_budget: Annotated[
        int | None,
        typer.Option(
            help="Tokens in a batch of mixed shapes; MAX_BATCH average requests by default.",
            min=1,
            show_default=False,
        ),
    ] = None,
    max_wait: Annotated[
        str | None,
        typer.Option(
            help=(
                "That an idle device waits for company, e.g. 2s; half an average request by"
                " default."
            ),
            show_default=False,
        ),
    ] = None,
    requests: Annotated[
        int, typer.Option(help="Simulated at each arrival rate.", min=100, max=100_000)
    ] = 2000,
    seed: Annotated[int, typer.Option(help="Of the arrivals.", min=0, max=2**31)] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            help="A folder for the document and the figure, throughput against latency.",
            show_default=False,
        ),
    ] = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Throughput against latency of one device under Poisson arrivals of mixed shapes: one by one,
    in batches of one shape, in packed batches, and with requests that join between steps.  Steps
    are measured, arrivals simulated."""
    from bench.core.load import load_point, parse_overrides
    from bench.core.units import parse_duration

    check_device(device)
    try:
        wait_s = None if max_wait is None else parse_duration(max_wait)
    except UserError as error:
        raise UserError(f"--max-wait: {error}") from None
    changes, names = parse_overrides(overrides or []), list(dict.fromkeys(workload))
    points = [
        load_point(model, name, recipe, changes) for name in names
    ]  # a mistake is said before torch is loaded
    from bench.measure.device.environment import choose_device, describe
    from bench.measure.errors import OutOfMemory, Unsupported
    from bench.report.progress import Spinner
    from bench.report.tables.serving import (
        serving_document,
        serving_lines,
        serving_table,
        step_times_table,
    )
    from bench.studies.serving.batches import Load, check_servable, serve

    check_servable(points)
    chosen, shares = choose_device(device), [list(workload).count(name) for name in names]
    try:
        with Spinner("measuring steps") as spinner:
            asked = Load(shares, max_batch, token_budget, wait_s, requests, seed)
            measured, sweeps = serve(points, chosen, asked, spinner.say)
    except (OutOfMemory, Unsupported) as fault:
        raise EnvironmentFault(f"model {model}: {fault}") from None
    document = serving_document(
        points[0].model.name,
        points[0].recipe.name,
        describe(chosen),
        measured,
        sweeps,
        {"requests": requests, "seed": seed, "shares": shares},
    )
    if out is not None:
        from bench.report.figures.registry import save_queue

        figure = save_queue(out, document)
        (out / "serving.json").write_text(json.dumps(document, allow_nan=False, indent=1) + "\n")
        say(f"figure: {figure}")
    if as_json:
        return print_json(document)
    show(step_times_table(document), serving_table(document))
    for line in serving_lines(document):
        typer.echo(line)
