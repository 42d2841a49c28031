"""At which share of its ceilings does this device work, and how right is that?  calibrate."""

from pathlib import Path
from typing import Annotated

import typer

from bench.commands.parts.held_out import hold_against
from bench.commands.parts.options import Json, go_with
from bench.commands.parts.output import print_json, say, show
from bench.core.errors import UserError

ResultDirs = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="[RESULT_DIR]...",
        help="A directory made by `ldt-bench run`, or several of one card.",
        show_default=False,
    ),
]
Against = Annotated[
    Path | None,
    typer.Option(
        metavar="RESULT",
        help="Hold the predictions against another result, measured after this one.",
        show_default=False,
    ),
]
MaxMedian = Annotated[
    float | None,
    typer.Option(help="With --against: exit code 1 where the median error is larger, e.g. 0.08."),
]
MaxWorst = Annotated[
    float | None,
    typer.Option(help="With --against: the same for the worst error, e.g. 0.2."),
]
Transfer = Annotated[
    bool,
    typer.Option(
        "--transfer",
        help="With --against: RESULT is of another card; carry the calibration over to it.",
    ),
]
Table = Annotated[
    Path | None,
    typer.Option(
        "--from",
        metavar="TABLE",
        help="Fit to a CSV of somebody else's measured latencies instead.",
    ),
]
Gpu = Annotated[str | None, typer.Option(help="With --from: this kind of card alone.")]
Out = Annotated[
    Path | None,
    typer.Option(help="With several: where the merged result goes; beside the first by default."),
]


def calibrate(
    result_dirs: ResultDirs = None,
    against: Against = None,
    max_median: MaxMedian = None,
    max_worst: MaxWorst = None,
    carried: Transfer = False,
    table_file: Table = None,
    gpu: Gpu = None,
    out: Out = None,
    as_json: Json = False,
) -> int | None:
    """Fit utilisation by operator class to a result's records, beside the constant-utilisation
    baseline.

    With --against, hold its predictions against points measured afterwards, beside one MFU for
    all: run calibrate-cpu, run holdout-cpu, then this with the two directories. Several results of
    one card become a new one with all their records, which is fitted and has a report of its own.
    With --from, fit to a table of whole videos with the columns model, gpu, width, height, frames,
    steps, forwards_per_video, scope, latency_s: every GPU kind with enough rows, or --gpu's."""
    directories = result_dirs or []
    if bool(directories) == (table_file is not None):
        raise UserError(
            "calibrate takes a result directory, or --from TABLE"
            + (", not both" if directories else "")
        )
    go_with("several result directories", len(directories) > 1, {"--out": out})
    go_with("--from; a result has the card it was measured on", bool(table_file), {"--gpu": gpu})
    limits = {"median": max_median, "worst": max_worst}
    of_against = {f"--max-{name}": limit for name, limit in limits.items()}
    go_with("--against", against is not None, {**of_against, "--transfer": carried})
    if against is not None:
        if len(directories) != 1:
            raise UserError("--against goes with one result directory")
        return hold_against(directories[0], against, limits, carried, as_json)
    if table_file is not None:
        return _calibrate_published(table_file, gpu, as_json)
    return _calibrate_results(directories, out, as_json)


def _calibrate_results(directories: list[Path], out: Path | None, as_json: bool) -> None:
    from bench.calibrate.make import calibrate as calibrate_result
    from bench.report.documents import calibration_document
    from bench.report.progress import Spinner
    from bench.report.tables.calibration import errors_table, parameters_table
    from bench.report.write import write_report
    from bench.results.manifest import write_manifest
    from bench.results.merge import merge

    alone = len(directories) == 1
    directory = directories[0] if alone else merge(directories, out, mix=True)
    with Spinner("fitting the cost model, and once more without each point"):
        calibration = calibrate_result(directory)
        write_manifest(directory)
    if len(directories) > 1:
        write_report(directory, for_print=False)
        say(f"merged result: {directory}")
    if as_json:
        return print_json(calibration_document(calibration))
    for fit in calibration.fits.values():
        show(parameters_table(fit), errors_table(fit))


def _calibrate_published(table_file: Path, gpu: str | None, as_json: bool) -> None:
    from bench.calibrate.published.held_out import fit_table
    from bench.calibrate.published.table import read_table
    from bench.report.progress import Spinner
    from bench.report.tables.published import published_document, published_tables, readings_tables

    table = read_table(table_file)
    with Spinner("reading the table") as spinner:
        fits, unfitted = fit_table(table, gpu, spinner.say)
    if as_json:
        return print_json(published_document(table, fits, unfitted))
    show(*readings_tables(table, unfitted), *(t for fit in fits for t in published_tables(fit)))
