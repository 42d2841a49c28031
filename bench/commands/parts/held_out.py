"""How right is a calibration about what was measured after it?  calibrate --against."""

from pathlib import Path
from typing import Any

import typer

from bench.commands.parts.output import complain, print_json, show
from bench.core.errors import UserError


def hold_against(
    calibration: Path,
    result: Path,
    limits: dict[str, float | None],
    carried: bool,
    as_json: bool,
) -> int:
    """Predictions beside what was measured afterwards, and beside one MFU for all.  limits: the
    largest `median` and `worst` error that pass -> 1 where one is over."""
    for name, limit in limits.items():
        if limit is not None and not 0 < limit < 100:
            raise UserError(f"--max-{name} {limit:g}: expected a share over 0, e.g. 0.08 for 8 %")
    from bench.calibrate.holdout import hold_out, summary, warn_of_order
    from bench.calibrate.make import load_or_calibrate
    from bench.report.progress import Spinner

    with Spinner("predicting what was measured"):
        rows, left_out = hold_out(load_or_calibrate(calibration), result, carried=carried)
    warn_of_order(calibration, result)
    found = summary(rows)
    failed = [
        f"{name} error {found['error'][name]:.1%} is over {limit:.1%}"
        for name, limit in limits.items()
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
        _print(rows, found, left_out)
    for line in failed:
        complain(line)
    return 1 if failed else 0


def _print(rows: list[Any], found: dict[str, Any], left_out: list[str]) -> None:
    from bench.report.tables.calibration import holdout_errors_table, holdout_table

    show(holdout_table(rows), holdout_errors_table(found))
    inside = f"{found['inside_90_percent']:.0%}"
    typer.echo(f"{inside} of the measured medians lie in the predictions' 90 % intervals")
    for line in left_out:
        typer.echo(f"left out: {line}")
