"""What this machine reaches and whether its readings hold: ceilings, doctor, check-timer."""

from pathlib import Path
from typing import Annotated

import typer

from bench.commands.options import (
    Device,
    Json,
    Set,
    WorkloadName,
    check_device,
    check_gpu,
    completes,
)
from bench.commands.output import print_json, say, show
from bench.core.errors import EnvironmentFault

DOCTOR_TIMEOUT_S = 120.0


def ceilings(
    device: Device = None,
    recipe: Annotated[
        list[str] | None,
        typer.Option(
            help=(
                "Whose dtype and attention backend to probe; eager-bf16 on a GPU, eager-fp32 on a"
                " CPU."
            )
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure what this device reaches: GEMM, attention, 3D convolution, and memory by size."""
    from bench.core.load import load
    from bench.core.specs.recipe import Recipe
    from bench.measure.worker.process import JobFailed, Worker
    from bench.report.documents import ceilings_document
    from bench.report.progress import Spinner
    from bench.report.tables.ceilings import bandwidth_table, ceilings_table, gemm_ceiling
    from bench.run.suite import CEILINGS_SAMPLING, ceilings_only

    check_device(device)
    with Worker(device) as worker:
        default = ["eager-bf16" if worker.environment.device == "cuda" else "eager-fp32"]
        recipes = [load(Recipe, name) for name in recipe or default]
        try:
            with Spinner("measuring ceilings") as spinner:
                record = ceilings_only(
                    worker, recipes, CEILINGS_SAMPLING, lambda stage, samples: spinner.say(stage)
                )
        except JobFailed as failure:
            raise EnvironmentFault(f"ceilings: {failure.outcome}: {failure.reason}") from None
    if as_json:
        return print_json(ceilings_document(record))
    from bench.core.load import datasheet

    show(ceilings_table(record, datasheet(record.environment.gpu)), bandwidth_table(record))
    typer.echo(gemm_ceiling(record))
    if record.reason:
        say(f"warning: {record.reason}")


def doctor(
    device: Device = None,
    expect: Annotated[
        str | None,
        typer.Option(
            help="The card that was ordered, a name in configs/gpus.",
            autocompletion=completes("gpus"),
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Where results would go: its disk is looked at.")
    ] = Path("results"),
    as_json: Json = False,
) -> int:
    """Is this node worth keeping?  Card, health, clocks under load, rates against published ones,
    host; under a minute.

    Exit code 0 for keep, 1 for suspicious or swap."""
    from bench.core.load import datasheet
    from bench.measure.worker.process import JobFailed, Worker
    from bench.measure.worker.protocol import ExamineNode
    from bench.report.progress import Spinner
    from bench.report.tables.doctor import acceptance_document, acceptance_table
    from bench.studies.acceptance.verdict import accept, broken

    check_device(device)
    check_gpu(expect, "--expect")
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
        except JobFailed as failure:
            accepted = broken(failure.outcome, failure.reason)
    if as_json:
        print_json(acceptance_document(environment, accepted))
    else:
        show(acceptance_table(environment.device_name, accepted))
        typer.echo(
            "\n".join(
                [f"verdict: {accepted.verdict}", *(f"  {reason}" for reason in accepted.reasons)]
            )
        )
    return 0 if accepted.verdict == "keep" else 1


def check_timer(
    model: Annotated[
        str, typer.Argument(help="A name in configs/models, or a YAML file.")
    ] = "tiny",
    workload: WorkloadName = "tiny-video",
    recipe: Annotated[str, typer.Option(help="How it is run.")] = "eager-fp32",
    device: Device = None,
    rounds: Annotated[
        int, typer.Option(help="Rounds of five calls each way.", min=6, max=10_000)
    ] = 40,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Hold the harness's clock against a bare loop and torch.utils.benchmark; on CUDA also against
    a graph replay."""
    from bench.core.load import load_point, parse_overrides

    check_device(device)
    point = load_point(model, workload, recipe, parse_overrides(overrides or []))
    import torch

    from bench.measure.device.environment import choose_device
    from bench.measure.points.build import build_calls
    from bench.measure.timing.check import check_timer as hold_against_loop
    from bench.measure.timing.clock import clock_for, clock_without_hold
    from bench.report.progress import Spinner
    from bench.report.tables.doctor import timer_table

    chosen = choose_device(device)
    call = build_calls(point, chosen)[0]["denoise_step"]
    with torch.inference_mode(), Spinner("timing in turns") as spinner:
        checked = hold_against_loop(
            call,
            chosen,
            clock_for(chosen),
            rounds,
            lambda done: spinner.at(done, rounds),
            clock_without_hold(chosen),
        )
    if as_json:
        print_json({"point": point.label, **checked.as_dict()})
    else:
        show(timer_table(point.label, checked.as_dict()))
    if not checked.agrees:
        raise typer.Exit(1)
