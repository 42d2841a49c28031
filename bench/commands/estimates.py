"""From records to figures: calibrate, predict, analytic, report."""

from pathlib import Path
from typing import Annotated

import typer

from bench.commands.options import Json, ModelName, ResultDir, Set, WorkloadName, completes
from bench.commands.output import print_json, say, show
from bench.core.errors import UserError


def calibrate(
    result_dirs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RESULT_DIR]...",
            help="A directory made by `ldt-bench run`, or several of one card.",
            show_default=False,
        ),
    ] = None,
    table_file: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="TABLE",
            help="Fit to a CSV of somebody else's measured latencies instead.",
        ),
    ] = None,
    gpu: Annotated[str | None, typer.Option(help="With --from: this kind of card alone.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="With several: where the merged result goes; beside the first by default."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Fit utilisation by operator class to a result's records, beside the constant-utilisation
    baseline.

    Several results of one card become a new one with all their records, which is fitted and has a
    report of its own. With --from, to a table of whole videos with the columns model, gpu, width,
    height, frames, steps, forwards_per_video, scope, latency_s: every GPU kind with enough rows, or
    --gpu's."""
    if bool(result_dirs) == (table_file is not None):
        raise UserError(
            "calibrate takes a result directory, or --from TABLE"
            + (", not both" if result_dirs else "")
        )
    if out is not None and len(result_dirs or []) < 2:
        raise UserError("--out goes with several result directories")
    if table_file is not None:
        return _calibrate_published(table_file, gpu, as_json)
    if gpu is not None:
        raise UserError(
            "--gpu goes with --from; a result directory has the card it was measured on"
        )
    from bench.calibrate.make import calibrate as calibrate_result
    from bench.calibrate.merge import merge
    from bench.report.documents import calibration_document
    from bench.report.progress import Spinner
    from bench.report.tables.calibration import errors_table, parameters_table
    from bench.report.write import write_report

    assert result_dirs
    directory = result_dirs[0] if len(result_dirs) == 1 else merge(result_dirs, out)
    with Spinner("fitting the cost model, and once more without each point"):
        calibration = calibrate_result(directory)
    if len(result_dirs) > 1:
        write_report(directory, for_print=False)
        say(f"merged result: {directory}")
    if as_json:
        return print_json(calibration_document(calibration))
    show(
        *(
            t
            for fit in calibration.fits.values()
            for t in (parameters_table(fit), errors_table(fit))
        )
    )


def _calibrate_published(table_file: Path, gpu: str | None, as_json: bool) -> None:
    from bench.report.progress import Spinner
    from bench.report.tables.published import published_document, published_tables, readings_tables
    from bench.studies.published.held_out import fit_table
    from bench.studies.published.table import read_table

    table = read_table(table_file)
    with Spinner("reading the table") as spinner:
        fits, unfitted = fit_table(table, gpu, spinner.say)
    if as_json:
        return print_json(published_document(table, fits, unfitted))
    show(*readings_tables(table, unfitted), *(t for fit in fits for t in published_tables(fit)))


def predict(
    model: ModelName,
    workload: WorkloadName,
    calibration: Annotated[Path, typer.Option(help="A result directory.")],
    recipe: Annotated[
        str | None,
        typer.Option(
            help=(
                "A calibrated recipe or one of the same rates; the headline's by default, on a GPU "
                "one of half precision."
            ),
            autocompletion=completes("recipes"),
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


def analytic(
    calibration: Annotated[
        Path | None, typer.Option(help="A result directory: adds calibrated values.")
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(
            help=(
                "Whose datasheet the cross-model table is taken at; h100-sxm, or the calibrated"
                " card."
            )
        ),
    ] = None,
    tornado: Annotated[
        bool, typer.Option("--sensitivity", help="Which factor moves the answer most.")
    ] = False,
    figures: Annotated[
        Path | None, typer.Option(help="A folder to draw the waterfall and the tornado in.")
    ] = None,
    as_json: Json = False,
) -> None:
    """The pencil estimate A1 to A17, as printed, corrected and calibrated; the waterfall; the cost
    across models."""
    from bench.report.chain import analyse, analysis_document
    from bench.report.progress import Spinner

    with Spinner("the chain, with what was measured" if calibration else "the chain"):
        found = analyse(calibration, gpu, tornado=tornado)
    if figures is not None:
        from bench.report.figures.registry import save_chain
        from bench.results.store import disk_faults

        with disk_faults(figures, measured=False):
            save_chain(figures, found.bars, found.swings)
    if as_json:
        return print_json(analysis_document(found))
    from bench.report.tables.pencil import analysis_tables

    show(*analysis_tables(found))
    for warning in found.measured.warnings if found.measured else []:
        say(f"warning: {warning}")


def report(result_dir: ResultDir, as_json: Json = False) -> None:
    """Write report.html, report.md and the figures of a result anew."""
    from bench.report.progress import Spinner
    from bench.report.write import write_report
    from bench.results.store import PAGE

    with Spinner("drawing the report"):
        path = write_report(result_dir)
    page = str(path.with_name(PAGE))
    print_json({"report": str(path), "report_html": page}) if as_json else typer.echo(page)
