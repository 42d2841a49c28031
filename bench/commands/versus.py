"""Two models, or one under two recipes, against each other in one run."""

from typing import Annotated, get_args

import typer

from bench.commands.options import Device, Json, ModelName, Set, WorkloadName, check_device
from bench.commands.output import print_json, show
from bench.core.errors import EnvironmentFault, UserError, nearest

PEAK_TIMEOUT_S = 600.0


def versus(
    model_a: ModelName,
    model_b: Annotated[
        str, typer.Argument(help="What it is held against; may be the same.", show_default=False)
    ],
    workload: WorkloadName,
    recipe: Annotated[str, typer.Option(help="How both are run.", show_default=False)],
    recipe_b: Annotated[
        str | None, typer.Option(help="How MODEL_B is run, where it differs.")
    ] = None,
    stage: Annotated[
        str, typer.Option(help="forward, denoise_step, vae_decode, vae_encode, ...")
    ] = "denoise_step",
    device: Device = None,
    rounds: Annotated[int, typer.Option(help="Visits to each side.", min=6, max=10_000)] = 40,
    max_time: Annotated[
        str, typer.Option(help="No new round after this long, but for the first six.")
    ] = "30s",
    set_a: Annotated[
        list[str] | None, typer.Option(metavar="PATH=VALUE", help="As --set, for MODEL_A.")
    ] = None,
    set_b: Annotated[
        list[str] | None, typer.Option(metavar="PATH=VALUE", help="As --set, for MODEL_B.")
    ] = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Two models, or one under two recipes, timed in turns: the ratio with its interval, FLOPs and
    peak memory of both."""
    from bench.core.load import load_point, parse_overrides
    from bench.core.units import parse_duration

    check_device(device)
    try:
        max_s = parse_duration(max_time)
    except UserError as error:
        raise UserError(f"--max-time: {error}") from None
    from bench.core.specs.model import Stage

    stages = ["forward", *get_args(Stage)]
    if stage not in stages:
        raise UserError(
            f"--stage {stage!r} is not one of {', '.join(stages)}{nearest(stage, stages)}"
        )
    built = "denoise_step" if stage == "forward" else stage
    a, b = (
        load_point(
            model, workload, how, parse_overrides([*(overrides or []), *(changes or [])]), (built,)
        )
        for model, how, changes in ((model_a, recipe, set_a), (model_b, recipe_b or recipe, set_b))
    )
    from bench.core.specs.recipe import DTYPE_BYTES
    from bench.count.point import count_point
    from bench.measure.device.environment import choose_device
    from bench.measure.errors import Unsupported
    from bench.measure.points.versus import measure_versus
    from bench.measure.timing.clock import clock_for
    from bench.measure.worker.process import JobFailed, Worker
    from bench.measure.worker.protocol import MeasurePeak
    from bench.report.progress import Spinner
    from bench.report.tables.versus import side, versus_document, versus_line, versus_table
    from models.pipeline import PARTS_OF_STAGE

    chosen = choose_device(device)
    with Spinner("counting") as spinner:
        counts = [count_point(point) for point in (a, b)]
        peaks = []
        for point in (a, b):
            spinner.say(f"peak memory of {point.model.name}")
            try:
                # A process each: what one took says nothing of the other.
                with Worker(chosen.type) as worker:
                    request = MeasurePeak(point=point, stage=stage)
                    peaks.append(worker.run(request, PEAK_TIMEOUT_S).model_dump())
            except JobFailed as failure:
                raise EnvironmentFault(
                    f"{point.label}: {failure.outcome}: {failure.reason}"
                ) from None
        try:
            timed = measure_versus(
                a,
                b,
                stage,
                chosen,
                clock_for(chosen),
                rounds=rounds,
                max_s=max_s,
                watch=lambda done: spinner.at(done, rounds, "in turns"),
            )
        except Unsupported as error:
            raise EnvironmentFault(str(error)) from None
    sides = [
        side(
            point,
            count.stages[stage].flops,
            count.params[PARTS_OF_STAGE[stage]] * DTYPE_BYTES[point.recipe.dtype]
            + count.stages[stage].bytes_peak_activations,
            peak,
            seconds,
            calls,
        )
        for point, count, peak, seconds, calls in zip(
            (a, b), counts, peaks, (timed.a_s, timed.b_s), timed.calls, strict=True
        )
    ]
    document = versus_document(
        *sides,
        workload=a.workload.name,
        stage=stage,
        device=chosen.type,
        ratio=timed.ratio,
        verdict=timed.verdict,
        stop=timed.stop,
    )
    if as_json:
        return print_json(document)
    show(versus_table(document))
    typer.echo(versus_line(document))
