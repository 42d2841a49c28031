"""Where does the time go?  profile."""

import contextlib
import time
from collections.abc import Iterator
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
    recipe_option,
)
from bench.commands.parts.output import print_json, show
from bench.core.errors import EnvironmentFault, UserError, nearest

Recipe = Annotated[str, recipe_option("How it is run.")]
Stage = Annotated[
    str, typer.Option(help="forward, denoise_step, vae_decode, ...; of a trajectory its step.")
]
Calls = Annotated[int, typer.Option(help="Profiled calls.", min=1, max=1000)]
Out = Annotated[
    Path | None,
    typer.Option(
        help="Where the files go; by default profiles/<time>_<model>_<workload>.",
        show_default=False,
    ),
]
RealWeights = Annotated[
    str | None,
    typer.Option("--weights", metavar="DIR", help="Real weights, as of `run`."),
]


def profile(
    model: ModelName,
    workload: WorkloadName,
    recipe: Recipe = "eager",
    stage: Stage = "denoise_step",
    device: Device = None,
    calls: Calls = 5,
    out: Out = None,
    overrides: Set = None,
    weights: RealWeights = None,
    as_json: Json = False,
) -> None:
    """Time a stage by module and by operator: measured seconds, counted FLOPs and bytes, the share
    of what the device reaches, what bounds each, and a residual that closes the sum to the step.

    Writes profile.json, a page with an icicle figure and a Chrome trace (for
    https://ui.perfetto.dev)."""
    from bench.core.specs.model import Stage as StageName

    check_device(device)
    stages = ["forward", *(name for name in get_args(StageName) if name != "trajectory")]
    if stage not in stages:
        raise UserError(
            f"--stage {stage!r} is not one of {', '.join(stages)}{nearest(stage, stages)}"
        )
    point = _point(model, workload, recipe, stage, overrides, weights)
    named = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}_{Path(model).stem}"
    directory = out or Path("profiles") / f"{named}_{Path(workload).stem}"
    taken, files = _taken(point, stage, device, calls, directory)
    from bench.report.profile.tables import (
        modules_table,
        operators_table,
        profile_document,
        profile_line,
    )

    if as_json:
        return print_json(profile_document(taken, files))
    show(modules_table(taken), operators_table(taken))
    typer.echo(profile_line(taken))
    typer.echo(f"page: {files['page']}; trace: {files['trace']}")


def _point(
    model: str,
    workload: str,
    recipe: str,
    stage: str,
    overrides: list[str] | None,
    weights: str | None,
) -> Any:
    from bench.core import load
    from bench.core.specs.model import Model
    from bench.core.user.weights import weights_of

    built = "denoise_step" if stage == "forward" else stage
    changes = load.parse_overrides(overrides or [])
    real = weights_of(weights, load.load(Model, model)) if weights else None
    return load.load_point(model, workload, recipe, changes, (built,), real)


@contextlib.contextmanager
def _no_empty(directory: Path) -> Iterator[None]:
    """A directory in which nothing was written goes again."""
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # it holds something, or has gone
            directory.rmdir()


def _taken(
    point: Any, stage: str, device: str | None, calls: int, directory: Path
) -> tuple[Any, dict[str, str]]:
    """The profile and its files."""
    from bench.measure.device.environment import choose_device
    from bench.measure.errors import Unsupported
    from bench.measure.points.build import said_of_user_code
    from bench.measure.profile.take import profile_stage
    from bench.measure.timing.clock import clock_for
    from bench.report.profile.write import write_profile
    from bench.report.progress import Spinner
    from bench.results.store import disk_faults

    chosen = choose_device(device)
    with disk_faults(directory, measured=False):
        directory.mkdir(parents=True, exist_ok=True)
    trace = directory / "trace.json"
    with _no_empty(directory), Spinner("counting") as spinner, said_of_user_code([point]):
        try:
            taken = profile_stage(
                point,
                stage,
                chosen,
                clock_for(chosen),
                calls=calls,
                trace_path=trace,
                watch=spinner.say,
            )
        except Unsupported as error:
            raise EnvironmentFault(str(error)) from None
    return taken, {**write_profile(directory, taken), "trace": str(trace)}
