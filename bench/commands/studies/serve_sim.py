"""How many users does one device serve?  serve-sim."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.commands.parts.options import Device, Json, Set, check_device, duration, recipe_option
from bench.commands.parts.output import print_json, say, show
from bench.core.errors import EnvironmentFault

RECIPE = "eager-fp32"
SERVED = ("tiny-clip", "tiny-wide", "tiny-tall")


Own = Annotated[str, typer.Argument(help="An own model: a name in configs/models, or a YAML file.")]
Shapes = Annotated[
    list[str],
    typer.Option(
        "--workload",
        "-w",
        help="A shape that is asked for; repeatable, twice the same for twice the share.",
    ),
]
Recipe = Annotated[str | None, recipe_option("How it is run; eager in fp32 by default.")]
MaxBatch = Annotated[int, typer.Option(help="Requests in a batch of one shape.", min=1, max=64)]
TokenBudget = Annotated[
    int | None,
    typer.Option(
        help="Tokens in a batch of mixed shapes; MAX_BATCH average requests by default.",
        min=1,
        show_default=False,
    ),
]
MaxWait = Annotated[
    str | None,
    typer.Option(
        help="How long an idle device waits for company, e.g. 2s; half an average request by"
        " default.",
        show_default=False,
    ),
]
Requests = Annotated[
    int, typer.Option(help="Simulated at each arrival rate.", min=100, max=100_000)
]
Seed = Annotated[int, typer.Option(help="Of the arrivals.", min=0, max=2**31)]
Out = Annotated[
    Path | None,
    typer.Option(
        help="A folder for the document and the figure, throughput against latency.",
        show_default=False,
    ),
]


def serve_sim(
    model: Own = "tiny",
    workload: Shapes = SERVED,
    recipe: Recipe = None,
    device: Device = None,
    max_batch: MaxBatch = 4,
    token_budget: TokenBudget = None,
    max_wait: MaxWait = None,
    requests: Requests = 2000,
    seed: Seed = 0,
    out: Out = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Throughput against latency of one device under Poisson arrivals of mixed shapes: one by one,
    in batches of one shape, in packed batches, and with requests that join between steps.  Steps
    are measured, arrivals simulated."""
    from bench.core.load import load_point, parse_overrides

    check_device(device)
    wait_s = None if max_wait is None else duration(max_wait, "--max-wait")
    changes, names = parse_overrides(overrides or []), list(dict.fromkeys(workload))
    # A mistake is said before torch is loaded.
    points = [load_point(model, name, recipe or RECIPE, changes) for name in names]
    from bench.measure.device.environment import choose_device, describe
    from bench.measure.errors import OutOfMemory, Unsupported
    from bench.report.progress import Spinner
    from bench.report.tables.serving import serving_document
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
        _save(document, out)
    if as_json:
        return print_json(document)
    _print(document)


def _save(document: dict[str, Any], out: Path) -> None:
    from bench.report.figures.registry import save_queue

    figure = save_queue(out, document)
    (out / "serving.json").write_text(json.dumps(document, allow_nan=False, indent=1) + "\n")
    say(f"figure: {figure}")


def _print(document: dict[str, Any]) -> None:
    from bench.report.tables.serving import serving_lines, serving_table, step_times_table

    show(step_times_table(document), serving_table(document))
    for line in serving_lines(document):
        typer.echo(line)
