"""What would it take?  predict."""

from pathlib import Path
from typing import Annotated

import typer

from bench.commands.options import Json, ModelName, Set, WorkloadName, completes, recipe_option
from bench.commands.output import print_json, say, show
from bench.core.errors import UserError


def predict(
    model: ModelName,
    workload: WorkloadName,
    calibration: Annotated[Path, typer.Option(help="A result directory.")],
    recipe: Annotated[
        str | None,
        recipe_option(
            "A calibrated recipe or one of the same rates; the headline's by default, on a GPU one"
            " of half precision."
        ),
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(
            help="Carry the calibration to this card (extrapolated).",
            autocompletion=completes("gpus"),
        ),
    ] = None,
    ceilings: Annotated[
        Path | None,
        typer.Option(help="A result of that card, for its measured ceilings; else its datasheet."),
    ] = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Predict seconds, minutes of video per GPU-hour, dollars and kWh of any model at any
    workload."""
    from bench.calibrate.estimate import estimate
    from bench.calibrate.make import load_or_calibrate
    from bench.core.load import load_point, parse_overrides
    from bench.report.documents import estimate_document
    from bench.report.progress import Spinner
    from bench.report.tables.calibration import estimate_table

    with Spinner("reading the calibration"):
        calibrated = load_or_calibrate(calibration)
    point = load_point(
        model, workload, recipe or calibrated.default_recipe, parse_overrides(overrides or [])
    )
    if point.model.autoregressive:
        raise UserError(
            f"model {point.model.name} is auto-regressive: a suite measures it, and `ldt-bench"
            f" analytic --calibration {calibration}` has its time beside diffusion's"
        )
    with Spinner(f"counting {point.label}"):
        predicted = estimate(point, calibrated, gpu=gpu, ceilings=ceilings)
    if as_json:
        return print_json(estimate_document(point, predicted))
    show(estimate_table(f"{point.label} on {predicted.gpu}", predicted))
    for warning in predicted.warnings:
        say(f"warning: {warning}")
