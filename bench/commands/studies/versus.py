"""Which of two is faster, measured now and in turns?  versus."""

from typing import Annotated, Any, get_args

import typer

from bench.commands.parts.options import (
    Device,
    Json,
    ModelName,
    Set,
    WorkloadName,
    check_device,
    completes,
    duration,
    names_yaml,
    recipe_option,
)
from bench.commands.parts.output import print_json, show
from bench.core.errors import EnvironmentFault, UserError, nearest

PEAK_TIMEOUT_S = 600.0

Other = Annotated[
    str,
    typer.Argument(
        help="What it is held against; may be the same.",
        show_default=False,
        callback=names_yaml,
        autocompletion=completes("models"),
    ),
]
Recipe = Annotated[str, recipe_option("How both are run.")]
OtherRecipe = Annotated[
    str | None, recipe_option("How MODEL_B is run, where it differs.", "--recipe-b")
]
Stage = Annotated[
    str | None,
    typer.Option(
        help="forward, denoise_step, trajectory, train_step, vae_decode, vae_encode,"
        " condition_encode, text_encode, prefill or decode_token; by default denoise_step, and"
        " trajectory where a recipe has a cache or a draft.",
        show_default=False,
    ),
]
Rounds = Annotated[int, typer.Option(help="Visits to each side.", min=6, max=10_000)]
MaxTime = Annotated[str, typer.Option(help="No new round after this long, but for the first six.")]
SetA = Annotated[
    list[str] | None, typer.Option(metavar="PATH=VALUE", help="As --set, for MODEL_A.")
]
SetB = Annotated[
    list[str] | None, typer.Option(metavar="PATH=VALUE", help="As --set, for MODEL_B.")
]

WeightsOf = Annotated[
    str | None,
    typer.Option("--weights", metavar="DIR", help="Real weights of both: as `run --weights`."),
]
WeightsA = Annotated[str | None, typer.Option(metavar="DIR", help="Real weights of MODEL_A alone.")]
WeightsB = Annotated[str | None, typer.Option(metavar="DIR", help="Real weights of MODEL_B alone.")]


def versus(
    model_a: ModelName,
    model_b: Other,
    workload: WorkloadName,
    recipe: Recipe,
    recipe_b: OtherRecipe = None,
    stage: Stage = None,
    device: Device = None,
    rounds: Rounds = 40,
    max_time: MaxTime = "30s",
    set_a: SetA = None,
    set_b: SetB = None,
    overrides: Set = None,
    weights: WeightsOf = None,
    weights_a: WeightsA = None,
    weights_b: WeightsB = None,
    as_json: Json = False,
) -> None:
    """Two models, or one under two recipes, timed in turns: the ratio with its interval, FLOPs and
    peak memory of both.  `ldt-bench compare` does the same with two stored results."""
    from bench.core import load
    from bench.core.specs.model import Model
    from bench.core.user.weights import weights_of

    check_device(device)
    max_s = duration(max_time, "--max-time")
    stage = _stage(stage, recipe, recipe_b or recipe)
    built = "denoise_step" if stage == "forward" else stage
    sides = (
        (model_a, recipe, set_a, weights_a or weights),
        (model_b, recipe_b or recipe, set_b, weights_b or weights),
    )
    points = []
    for model, how, changes, folder in sides:
        values = load.parse_overrides([*(overrides or []), *(changes or [])])
        real = weights_of(folder, load.load(Model, model)) if folder else None
        points.append(load.load_point(model, workload, how, values, (built,), real))
    document = _measured(points, stage, device, rounds, max_s)
    if as_json:
        return print_json(document)
    from bench.report.tables.versus import versus_line, versus_table

    show(versus_table(document))
    typer.echo(versus_line(document))


def _stage(stage: str | None, *recipes: str) -> str:
    """What is timed: by default a step, and a whole trajectory where a recipe's cache or draft
    makes its steps differ.  Raises UserError."""
    from bench.core import load
    from bench.core.specs import model as spec
    from bench.core.specs.recipe import Recipe as RecipeSpec

    stages = ["forward", *get_args(spec.Stage)]
    if stage is None:
        made = [load.load(RecipeSpec, name) for name in recipes]
        differ = any(one.cache is not None or one.draft is not None for one in made)
        return "trajectory" if differ else "denoise_step"
    if stage not in stages:
        raise UserError(
            f"--stage {stage!r} is not one of {', '.join(stages)}{nearest(stage, stages)}"
        )
    return stage


def _measured(
    points: list[Any], stage: str, device: str | None, rounds: int, max_s: float
) -> dict[str, Any]:
    from bench.measure.device.environment import choose_device
    from bench.measure.errors import Unsupported
    from bench.measure.points.build import check_supported, count_stages, said_of_user_code
    from bench.measure.points.versus import measure_versus
    from bench.measure.timing.clock import clock_for
    from bench.report.progress import Spinner
    from bench.report.tables.versus import side, versus_document

    chosen = choose_device(device)
    with Spinner("counting") as spinner:
        try:
            for point in points:
                check_supported(point, chosen)  # before a package that is missing is imported
            counts = [count_stages(point) for point in points]
        except Unsupported as error:
            raise EnvironmentFault(str(error)) from None
        peaks = []
        for point in points:
            spinner.say(f"peak memory of {point.model.name}")
            peaks.append(_peak(point, stage, chosen.type))
        try:
            with said_of_user_code(points):
                timed = measure_versus(
                    *points,
                    stage,
                    chosen,
                    clock_for(chosen),
                    rounds=rounds,
                    max_s=max_s,
                    watch=lambda done: spinner.at(done, rounds, "in turns"),
                )
        except Unsupported as error:
            raise EnvironmentFault(str(error)) from None
    sides = []
    for i, seconds in enumerate((timed.a_s, timed.b_s)):
        counted = counts[i].stages[stage]
        peak = _counted_peak(points[i], counts[i], stage)
        sides.append(side(points[i], counted.flops, peak, peaks[i], seconds, timed.calls[i]))
    return versus_document(
        *sides,
        workload=points[0].workload.name,
        stage=stage,
        device=chosen.type,
        ratio=timed.ratio,
        verdict=timed.verdict,
        stop=timed.stop,
    )


def _peak(point: Any, stage: str, device: str) -> dict[str, Any]:
    """Measured in a process of its own: what another point took says nothing of this one."""
    from bench.measure.worker.process import JobFailed, Worker
    from bench.measure.worker.protocol import MeasurePeak
    from models.python.spec import python_parts

    try:
        with Worker(device) as worker:
            return worker.run(MeasurePeak(point=point, stage=stage), PEAK_TIMEOUT_S).model_dump()
    except JobFailed as failure:
        if failure.outcome == "error" and (point.model.weights or any(python_parts(point.model))):
            raise UserError(failure.reason) from None
        raise EnvironmentFault(f"{point.label}: {failure.outcome}: {failure.reason}") from None


def _counted_peak(point: Any, count: Any, stage: str) -> int:
    """Bytes of the weights that the stage needs, and of its activations at their most."""
    from bench.core.specs.recipe import DTYPE_BYTES
    from models.pipeline import PARTS_OF_STAGE

    weights = count.params[PARTS_OF_STAGE[stage]] * DTYPE_BYTES[point.recipe.dtype]
    return weights + count.stages[stage].bytes_peak_activations
