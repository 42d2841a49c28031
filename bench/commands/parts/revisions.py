"""Step times of two git revisions, for `check --against` and `compare REV_A REV_B`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bench.commands.parts.options import duration
from bench.core.errors import UserError

if TYPE_CHECKING:
    from bench.studies.compare.revisions import StepChange

Unclear = Literal["fail", "pass"]
UnclearOption = Annotated[
    Unclear,
    typer.Option(
        help="What a step means whose ratio is still unclear when --max-time is over.",
    ),
]
MaxTime = Annotated[
    str, typer.Option(help="Of one point's turns; an unclear ratio is measured again within it.")
]
PointOption = Annotated[
    list[str] | None,
    typer.Option(
        "--point",
        metavar="MODEL:WORKLOAD[:RECIPE]",
        help="With two git revisions: what is timed. Repeatable.",
        show_default=False,
    ),
]


def timed_in_turns(
    before: str,
    after: str | None,
    points: Sequence[tuple[str, str, str]],
    *,
    stage: str,
    device: str | None,
    threshold: float | None,
    max_time: str,
) -> "list[StepChange]":
    """Each point's stage at both revisions.  after: None is the working tree.  Raises UserError,
    EnvironmentFault."""
    from bench.measure.turns.turns import Asked
    from bench.report.progress import Spinner
    from bench.studies.compare.revisions import checkout, steps_of

    if not points:
        raise UserError("which points? Name them with --point MODEL:WORKLOAD[:RECIPE]")
    if threshold is not None and not 0 < threshold < 1:
        raise UserError(f"--threshold {threshold:g} is not a share between 0 and 1, such as 0.05")
    max_s = duration(max_time, "--max-time")
    asked = [Asked(*point, stage=stage, device=device) for point in points]
    with checkout(before) as a, checkout(after) as b, Spinner("building") as spinner:
        return steps_of(a, b, asked, threshold=threshold, max_s=max_s, watch=spinner.say)


def failed(change: Any, unclear: Unclear) -> bool:
    """Does a step's verdict fail the gate?"""
    return change.verdict == "SLOWER" or (change.verdict == "UNCLEAR" and unclear == "fail")
