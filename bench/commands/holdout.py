"""Predict, then measure: holdout."""

from pathlib import Path
from typing import Annotated

import typer

from bench.commands.options import Json
from bench.commands.output import complain, print_json, show
from bench.core.errors import UserError


def holdout(
    calibration: Annotated[
        Path, typer.Argument(help="A result directory: what predicts.", show_default=False)
    ],
    result: Annotated[
        Path,
        typer.Argument(help="Another, measured after it: what is predicted.", show_default=False),
    ],
    max_median: Annotated[
        float | None,
        typer.Option(help="Fail (exit code 1) where the median error is larger, e.g. 0.08."),
    ] = None,
    max_worst: Annotated[
        float | None, typer.Option(help="The same for the worst error, e.g. 0.2.")
    ] = None,
    carried: Annotated[
        bool,
        typer.Option(
            "--transfer",
            help="The other result is of another card: carry the calibration over to it.",
        ),
    ] = False,
    as_json: Json = False,
) -> int:
    """Hold a calibration's predictions against points measured afterwards, beside one MFU for all.

    On a CPU: run calibrate-cpu, run holdout-cpu, then this with the two directories."""
    for option, limit in (("--max-median", max_median), ("--max-worst", max_worst)):
        if limit is not None and not 0 < limit < 100:
            raise UserError(f"{option} {limit:g}: a share over 0 is expected, e.g. 0.08 for 8 %")
    from bench.calibrate.holdout import hold_out, summary, warn_of_order
    from bench.calibrate.make import load_or_calibrate
    from bench.report.progress import Spinner
    from bench.report.tables.calibration import holdout_errors_table, holdout_table

    with Spinner("predicting what was measured"):
        rows, left_out = hold_out(load_or_calibrate(calibration), result, carried=carried)
    warn_of_order(calibration, result)
    found = summary(rows)
    failed = [
        f"{name} error {found['error'][name]:.1%} is over {limit:.1%}"
        for name, limit in (("median", max_median), ("worst", max_worst))
        if limit is not None and found["error"][name] > limit
    ]
    if as_json:
        print_json(
            {
                "calibration": str(calibration),
                "result": str(result),
                "provenance": "fitted, then measured",
                "points": [row.as_dict() for row in rows],
                **found,
                "left_out": left_out,
                "failed": failed,
            }
        )
    else:
        show(holdout_table(rows), holdout_errors_table(found))
        typer.echo(
            f"{found['inside_90_percent']:.0%} of the measured medians lie in the predictions' 90 %"
            " intervals"
        )
        for line in left_out:
            typer.echo(f"left out: {line}")
    for line in failed:
        complain(line)
    return 1 if failed else 0
