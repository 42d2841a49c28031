"""Has what a model computes changed?  check."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.commands.parts.options import Device, Json, check_device, go_with
from bench.commands.parts.output import print_json, show
from bench.commands.parts.revisions import MaxTime, UnclearOption, failed, timed_in_turns

if TYPE_CHECKING:
    from bench.studies.compare.revisions import StepChange
    from bench.studies.gate.baseline import Baseline
    from bench.studies.gate.changes import Change

BaselineFile = Annotated[
    Path, typer.Argument(metavar="BASELINE", help="A JSON file that `check --add` wrote.")
]
Add = Annotated[
    list[str] | None,
    typer.Option(
        metavar="MODEL:WORKLOAD[:RECIPE]",
        help="Count this point and write it into BASELINE. Repeatable.",
        show_default=False,
    ),
]
Markdown = Annotated[
    Path | None, typer.Option(help="Write the verdict there too, for a pull request.")
]


Against = Annotated[
    str | None,
    typer.Option(
        metavar="REV",
        help="Also time each point's step at this git revision and here, in turns.",
        show_default=False,
    ),
]
Threshold = Annotated[
    float | None,
    typer.Option(
        help="Of --against: share that fails; 0.02 on a GPU, 0.05 on a CPU by default.",
        show_default=False,
    ),
]


def check(
    baseline: BaselineFile,
    add: Add = None,
    against: Against = None,
    threshold: Threshold = None,
    max_time: MaxTime = "2m",
    unclear: UnclearOption = "fail",
    device: Device = None,
    markdown: Markdown = None,
    as_json: Json = False,
) -> int | None:
    """Hold FLOPs, parameters and modelled bytes of named points to a committed baseline, exactly.

    Needs no GPU, and seconds. MODEL may be a YAML file of your own. With --against, step times are
    held to those of another revision, too. Exit code 1 where a number differs or a step is slower;
    --add writes the baseline instead."""
    go_with("--against", against is not None, {"--threshold": threshold})
    check_device(device)
    from bench.report.progress import Spinner
    from bench.report.tables.comparison import changes_document, changes_markdown
    from bench.results.store import disk_faults
    from bench.studies.gate.baseline import (
        counted_point,
        parse_point,
        read_baseline,
        write_baseline,
    )
    from bench.studies.gate.changes import changes

    if add:
        asked = [parse_point(text) for text in add]
        before = read_baseline(baseline).points if baseline.is_file() else []
        with Spinner("counting"):
            written = write_baseline(baseline, [*before, *(counted_point(*p) for p in asked)])
        if as_json:
            return print_json({"path": str(baseline), "points": len(written.points)})
        typer.echo(f"{baseline}: {len(written.points)} points")
        return None
    held = read_baseline(baseline)
    with Spinner("counting"):
        found = changes(held)
    steps: list[StepChange] = []
    if against is not None:
        points = [(p.model, p.workload, p.recipe) for p in held.points]
        how = {"stage": "denoise_step", "device": device}
        steps = timed_in_turns(against, None, points, threshold=threshold, max_time=max_time, **how)
    fails = [failed(step, unclear) for step in steps]
    if markdown is not None:
        with disk_faults(markdown, measured=False):
            markdown.write_text(changes_markdown(held, found, steps, fails), encoding="utf-8")
    if as_json:
        print_json(changes_document(held, found, steps, fails))
    else:
        _say(held, found, steps, fails)
    return 1 if found or any(fails) else None


def _say(
    held: "Baseline",
    found: "list[Change]",
    steps: "list[StepChange]",
    fails: list[bool],
) -> None:
    from bench.report.tables.comparison import changes_table, step_words

    if found:
        show(changes_table(held, found))
    for step, fail in zip(steps, fails, strict=True):
        typer.echo(step_words(step, fail))
    verdict = "FAIL" if found or any(fails) else "ok"
    slower = f", {sum(fails)} of {len(steps)} steps fail" if steps else ""
    typer.echo(f"{verdict}: {len(held.points)} points, {len(found)} changes{slower}")
