"""Is this node worth keeping, what does it reach, is its clock right?  doctor."""

from pathlib import Path
from typing import Annotated

import typer

from bench.commands.parts import timer as clock
from bench.commands.parts.ceilings import measure_ceilings
from bench.commands.parts.options import (
    Device,
    Json,
    Set,
    check_device,
    check_gpu,
    completes,
    go_with,
    names_yaml,
    recipe_option,
)
from bench.commands.parts.output import print_json, show
from bench.core.errors import UserError

DOCTOR_TIMEOUT_S = 120.0

Ceilings = Annotated[
    bool,
    typer.Option(
        "--ceilings",
        help="Measure what the device reaches instead: GEMM, attention, 3D convolution, memory.",
    ),
]
Timer = Annotated[
    bool,
    typer.Option(
        "--timer",
        help=(
            "Hold the harness's clock against a bare loop and torch.utils.benchmark instead; on"
            " CUDA also against a graph replay."
        ),
    ),
]
Expect = Annotated[
    str | None,
    typer.Option(
        help="The card that was ordered, a name in configs/gpus.", autocompletion=completes("gpus")
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(help="Where results would go, results by default: its disk is looked at."),
]
Recipes = Annotated[
    list[str] | None,
    recipe_option("With --ceilings, repeatable, or --timer: eager by default, fp32 on a CPU."),
]
TimedModel = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="With --timer: tiny by default.",
        callback=names_yaml,
        autocompletion=completes("models"),
    ),
]
TimedWorkload = Annotated[
    str | None,
    typer.Option(
        "--workload",
        "-w",
        help="With --timer: tiny-video by default.",
        autocompletion=completes("workloads"),
    ),
]
Rounds = Annotated[
    int | None,
    typer.Option(
        help="With --timer: rounds of five calls each way; 40 by default.", min=6, max=10_000
    ),
]


def doctor(
    ceilings: Ceilings = False,
    timer: Timer = False,
    device: Device = None,
    expect: Expect = None,
    out: Out = None,
    recipe: Recipes = None,
    model: TimedModel = None,
    workload: TimedWorkload = None,
    rounds: Rounds = None,
    overrides: Set = None,
    as_json: Json = False,
) -> int | None:
    """Is this node worth keeping?  Card, health, clocks under load, rates against published ones,
    host; under a minute.  --ceilings says what it reaches, --timer whether its clock is right.

    Exit code 0 for keep, 1 for suspicious or swap; with --timer 1 where the clocks disagree."""
    if ceilings and timer:
        raise UserError("--ceilings and --timer: one of the two alone")
    examined = not (ceilings or timer)
    go_with("neither --ceilings nor --timer", examined, {"--expect": expect, "--out": out})
    go_with("--ceilings or --timer", not examined, {"--recipe": recipe, "--set": overrides})
    go_with("--timer", timer, {"--model": model, "--workload": workload, "--rounds": rounds})
    check_device(device)
    if ceilings:
        return measure_ceilings(device, recipe, overrides, as_json)
    if timer:
        if recipe and len(recipe) > 1:
            raise UserError(f"--recipe {recipe[1]}: --timer takes one recipe")
        return clock.check_timer(
            model or clock.MODEL,
            workload or clock.WORKLOAD,
            recipe[0] if recipe else clock.RECIPE,
            device,
            rounds or clock.ROUNDS,
            overrides,
            as_json,
        )
    check_gpu(expect, "--expect")
    return _examine(device, expect, out or Path("results"), as_json)


def _examine(device: str | None, expect: str | None, out: Path, as_json: bool) -> int:
    from bench.core.load import datasheet
    from bench.measure.worker.process import JobFailed, Worker
    from bench.measure.worker.protocol import ExamineNode
    from bench.report.progress import Spinner
    from bench.report.tables.doctor import acceptance_document, acceptance_table, others_table
    from bench.studies.acceptance.others import reached_by_others, slower_than_others
    from bench.studies.acceptance.verdict import accept, broken

    with Worker(device) as worker:
        environment = worker.environment
        try:
            with Spinner("examining this node"):
                readings = worker.run(ExamineNode(folder=str(out)), DOCTOR_TIMEOUT_S)
            accepted = accept(
                readings.model_dump(),
                environment.device,
                environment.device_name,
                environment.gpu,
                datasheet(environment.gpu),
                wanted=expect,
            )
            here = readings.values
        except JobFailed as failure:
            accepted, here = broken(failure.outcome, failure.reason), {}
    others = reached_by_others(out, environment.gpu, environment.device_uuid_hash)
    if as_json:
        document = acceptance_document(environment, accepted)
        print_json(document | {"other_cards": [vars(card) for card in others]})
    else:
        show(acceptance_table(environment.device_name, accepted))
        if others:
            show(others_table(here, others))
        typer.echo(f"verdict: {accepted.verdict}")
        for reason in [*accepted.reasons, *slower_than_others(here, others)]:
            typer.echo(f"  {reason}")
    return 0 if accepted.verdict == "keep" else 1
