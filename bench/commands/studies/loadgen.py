"""How does it do under MLPerf's load?  loadgen."""

from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from bench.commands.parts.options import (
    Device,
    Json,
    ModelName,
    Set,
    WorkloadName,
    check_device,
    duration,
    recipe_option,
)
from bench.commands.parts.output import print_json, show
from bench.core.errors import EnvironmentFault, UserError, nearest

Recipe = Annotated[str, recipe_option("How it is run.")]
ScenarioName = Annotated[str, typer.Option("--scenario", help="single-stream, offline or server.")]
Queries = Annotated[int, typer.Option(help="Videos, at least.", min=1, max=100_000)]
MinTime = Annotated[str, typer.Option(help="The run lasts so long, at least.")]
Rate = Annotated[
    float | None,
    typer.Option(help="Server: videos a second that are asked for; by default half of the most."),
]
Out = Annotated[Path, typer.Option(help="Where LoadGen's log files go.")]


def loadgen(
    model: ModelName,
    workload: WorkloadName,
    recipe: Recipe = "eager",
    scenario: ScenarioName = "single-stream",
    queries: Queries = 20,
    min_time: MinTime = "10s",
    rate: Rate = None,
    device: Device = None,
    out: Out = Path("loadgen"),
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Drive a whole pipeline (text, all steps, decode) by MLCommons' LoadGen, in the scenarios of
    MLPerf's text-to-video benchmark; its summary beside our own times, and MLPerf's published rows.

    Random weights: no accuracy run, so nothing here is an MLPerf result."""
    from bench.measure.points.build import said_of_user_code
    from bench.studies.loadgen.scenarios import NAMES, Asked, Scenario, run_scenario

    check_device(device)
    if scenario not in get_args(Scenario):
        known = get_args(Scenario)
        raise UserError(
            f"--scenario {scenario!r} is not one of {', '.join(known)}{nearest(scenario, known)}"
        )
    min_s = duration(min_time, "--min-time")
    point, make_video, wait, video_s = _pipeline(model, workload, recipe, overrides, device)
    target = rate if rate is not None else (0.5 if scenario == "server" else 1.0) / video_s
    if scenario == "offline":
        # LoadGen asks for 1.1 x rate x duration videos.
        target = max(target, queries / (1.1 * min_s))
    asked = Asked(scenario, queries, min_s, target)  # type: ignore[arg-type]
    with said_of_user_code([point]):
        result = run_scenario(make_video, asked, out / scenario, wait)
    from bench.report.fleet.loadgen import loadgen_document, loadgen_table, mlperf_table
    from bench.studies.loadgen.published import mlperf_rows

    rows = [row for row in mlperf_rows() if row.scenario == NAMES[scenario]]
    if as_json:
        return print_json(loadgen_document(result, rows))
    show(
        loadgen_table(result, point.label), *([mlperf_table(rows, NAMES[scenario])] if rows else [])
    )
    typer.echo(f"LoadGen's own files: {result.folder}")


def _pipeline(
    model: str, workload: str, recipe: str, overrides: list[str] | None, device: str | None
) -> tuple[Any, Any, Any, float]:
    """The point, a call that makes one batch of videos, a wait for the device, and seconds of a
    video."""
    import torch

    from bench.core.load import load_point, parse_overrides
    from bench.measure.device.environment import choose_device
    from bench.measure.errors import Unsupported
    from bench.measure.points.build import build_calls, check_supported, said_of_user_code
    from bench.measure.timing.clock import clock_for
    from bench.report.progress import Spinner

    changes = parse_overrides(overrides or [])
    point = load_point(model, workload, recipe, changes, _all_stages(model, workload, changes))
    chosen = choose_device(device)
    with Spinner(f"building {point.label}"), said_of_user_code([point]):
        try:
            check_supported(point, chosen)
            calls, _ = build_calls(point, chosen)
        except Unsupported as error:
            raise EnvironmentFault(str(error)) from None
        if "video" not in calls:
            raise UserError(f"model {point.model.name} is auto-regressive: it has no whole video")
        with torch.inference_mode():
            calls["video"]()
            video_s = clock_for(chosen).time(calls["video"])

    def make_video() -> None:
        with torch.inference_mode():  # of the thread that calls
            calls["video"]()

    def wait() -> None:
        if chosen.type == "cuda":
            torch.cuda.synchronize(chosen)

    return point, make_video, wait, video_s


def _all_stages(model: str, workload: str, changes: dict[str, Any]) -> tuple[str, ...]:
    """Everything that a video needs."""
    from bench.core.load import load_point
    from bench.core.specs.model import needs_condition

    point = load_point(model, workload, "eager", changes)
    stages = ["denoise_step", "vae_decode"]
    stages += ["text_encode"] if point.model.text_encoders else []
    stages += ["condition_encode"] if needs_condition(point.model, point.workload) else []
    return tuple(stages)
