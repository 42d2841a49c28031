"""The command names of the version before this one.  They still run, and say the new name in one
line on stderr.  To be removed with the next version."""

from pathlib import Path
from typing import Annotated

import typer

from bench.commands.calibrate import MaxMedian, MaxWorst, Transfer
from bench.commands.parts.ceilings import measure_ceilings
from bench.commands.parts.choose import BUDGET, Wanted, choose
from bench.commands.parts.held_out import hold_against
from bench.commands.parts.options import Device, Json, Set, WorkloadName, check_device, check_gpu
from bench.commands.parts.output import say
from bench.commands.parts.timer import MODEL, RECIPE, ROUNDS, WORKLOAD
from bench.commands.parts.timer import check_timer as hold_clocks


def _renamed(old: str, new: str) -> None:
    say(f"note: `ldt-bench {old}` is `ldt-bench {new}` now")


def ceilings(
    device: Device = None,
    recipe: Annotated[list[str] | None, typer.Option()] = None,
    as_json: Json = False,
) -> None:
    """Now `ldt-bench doctor --ceilings`."""
    _renamed("ceilings", "doctor --ceilings")
    check_device(device)
    measure_ceilings(device, recipe, None, as_json)


def check_timer(
    model: Annotated[str, typer.Argument()] = MODEL,
    workload: WorkloadName = WORKLOAD,
    recipe: Annotated[str, typer.Option()] = RECIPE,
    device: Device = None,
    rounds: Annotated[int, typer.Option(min=6, max=10_000)] = ROUNDS,
    overrides: Set = None,
    as_json: Json = False,
) -> int:
    """Now `ldt-bench doctor --timer`."""
    _renamed("check-timer", "doctor --timer")
    check_device(device)
    return hold_clocks(model, workload, recipe, device, rounds, overrides, as_json)


def holdout(
    calibration: Annotated[Path, typer.Argument(show_default=False)],
    result: Annotated[Path, typer.Argument(show_default=False)],
    max_median: MaxMedian = None,
    max_worst: MaxWorst = None,
    carried: Transfer = False,
    as_json: Json = False,
) -> int:
    """Now `ldt-bench calibrate CALIBRATION --against RESULT`."""
    _renamed("holdout", "calibrate CALIBRATION --against RESULT")
    limits = {"median": max_median, "worst": max_worst}
    return hold_against(calibration, result, limits, carried, as_json)


def plan(
    wanted: Annotated[str, typer.Option("--for", show_default=False)],
    workload: WorkloadName,
    budget: Annotated[str, typer.Option()] = BUDGET,
    suite: Annotated[str | None, typer.Option()] = None,
    recipe: Annotated[str | None, typer.Option()] = None,
    gpu: Annotated[str | None, typer.Option()] = None,
    device: Device = None,
    calibration: Annotated[Path | None, typer.Option()] = None,
    write: Annotated[Path | None, typer.Option()] = None,
    as_json: Json = False,
) -> None:
    """Now `ldt-bench run [SUITE] --choose-for MODEL`."""
    _renamed("plan", "run --choose-for MODEL")
    check_device(device)
    check_gpu(gpu)
    asked = Wanted([wanted], workload, recipe, [])
    choose(asked, suite, budget, device, gpu, calibration, write, as_json)


OLD_NAMES = {
    "ceilings": ceilings,
    "check-timer": check_timer,
    "holdout": holdout,
    "plan": plan,
}
