"""What does the pencil say?  analytic."""

from pathlib import Path
from typing import Annotated

import typer

from bench.commands.parts.options import Json
from bench.commands.parts.output import print_json, say, show


def analytic(
    calibration: Annotated[
        Path | None, typer.Option(help="A result directory: adds calibrated values.")
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(
            help=(
                "Whose published runs the waterfall ends at, and whose datasheet the cross-model"
                " table takes; h100-sxm, or the calibrated card."
            )
        ),
    ] = None,
    tornado: Annotated[
        bool, typer.Option("--sensitivity", help="Which factor moves the answer most.")
    ] = False,
    figures: Annotated[
        Path | None, typer.Option(help="A folder to draw the waterfall and the tornado in.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Another assumption, e.g. params=10e9, seconds=30, height=720, steps=50; counted"
            " and predicted beside it. Repeatable; a wrong name lists them all.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """The pencil estimate A1 to A17, as printed, corrected and calibrated; the waterfall; the cost
    across models."""
    from bench.core.load import parse_overrides
    from bench.report.chain import analyse, analysis_document
    from bench.report.progress import Spinner

    changes = parse_overrides(overrides or [], "seconds=30 or steps=50")
    with Spinner("the chain, with what was measured" if calibration else "the chain"):
        found = analyse(calibration, gpu, tornado=tornado, changes=changes)
    if figures is not None:
        from bench.report.figures.registry import save_chain
        from bench.results.store import disk_faults

        with disk_faults(figures, measured=False):
            save_chain(figures, found.bars, found.swings)
    if as_json:
        return print_json(analysis_document(found))
    from bench.report.tables.pencil import analysis_tables, said_of

    if not found.scenario.is_published:
        say(said_of(found.scenario))
    show(*analysis_tables(found))
    if found.published is not None:
        from bench.report.forecasts import resting_on

        say(f"calibrated: {resting_on(found.published.fast)}")
    rests = found.measured or found.published
    for warning in rests.warnings if rests else []:
        say(f"warning: {warning}")
