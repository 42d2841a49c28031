"""Is it slower than before?  compare."""

from pathlib import Path
from typing import Annotated, Any

import typer

from bench.commands.parts.options import Device, Json, go_with
from bench.commands.parts.output import print_json, say, show
from bench.commands.parts.revisions import (
    MaxTime,
    PointOption,
    Unclear,
    UnclearOption,
    failed,
    timed_in_turns,
)
from bench.core.errors import UserError, one_line

Before = Annotated[
    Path,
    typer.Argument(
        help="A result directory, or a git revision: the one before.", show_default=False
    ),
]
After = Annotated[
    Path | None,
    typer.Argument(
        help="The one after.  Left out: A is held against the last runs of its cohort (--history).",
        show_default=False,
    ),
]
Threshold = Annotated[
    float | None,
    typer.Option(
        help="Share that is worth a look; 0.02 on a GPU, 0.05 on a CPU by default.",
        show_default=False,
    ),
]
History = Annotated[
    Path | None,
    typer.Option(
        help="With one directory: the folder of earlier results; by default the one it lies in."
    ),
]
AllowDifferent = Annotated[
    bool,
    typer.Option(
        "--allow-different", help="Compare although the environments differ, with a warning."
    ),
]
Markdown = Annotated[bool, typer.Option("--markdown", help="A Markdown table on stdout.")]

Stage = Annotated[str, typer.Option(help="With two git revisions: what is timed of each point.")]


def compare(
    a: Before,
    b: After = None,
    threshold: Threshold = None,
    history: History = None,
    allow_different: AllowDifferent = False,
    markdown: Markdown = False,
    point: PointOption = None,
    stage: Stage = "denoise_step",
    max_time: MaxTime = "2m",
    unclear: UnclearOption = "fail",
    device: Device = None,
    as_json: Json = False,
) -> int:
    """Is b slower than a?  SAME, FASTER, SLOWER or UNCLEAR for each stage of each point of two
    results.  `ldt-bench versus` is the live form: it measures both sides, in turns.  With two git
    revisions and --point, each is checked out and the point's step is timed at both, in turns.

    Exit code 1 where anything is SLOWER (of revisions: or UNCLEAR), 2 where nothing can be."""
    if _are_revisions(a, b):
        how = {"stage": stage, "device": device, "threshold": threshold, "max_time": max_time}
        return _revisions(str(a), str(b), point or [], unclear, as_json, how)
    _only_results(a, b, point, device)
    from bench.report.tables.comparison import (
        comparison_document,
        comparison_lines,
        comparison_markdown,
        comparison_table,
    )
    from bench.results.store import read_records
    from bench.studies.compare.history import compare_history
    from bench.studies.compare.pair import compare as compare_results

    if b is not None:
        if history is not None:
            raise UserError("--history takes one result directory, not two")
        named, newer = [str(a)], b
        compared = compare_results(
            read_records(a), read_records(b), threshold=threshold, allow_different=allow_different
        )
    elif allow_different:
        raise UserError(
            "--allow-different takes two result directories: a history holds runs of one"
            " environment"
        )
    else:
        records, folder, newer = read_records(a), history or a.absolute().parent, a
        named = [str(folder)]
        compared = compare_history(records, _results_in(folder, a), threshold=threshold)
    if as_json:
        print_json(comparison_document(compared, named, str(newer)))
    elif markdown:
        typer.echo(comparison_markdown(compared))
    else:
        show(comparison_table(compared))
        for line in comparison_lines(compared):
            typer.echo(one_line(line))
    for warning in [] if as_json or markdown else compared.warnings:
        say(f"warning: {one_line(warning)}")
    return 1 if compared.verdict == "SLOWER" else 0


def _are_revisions(a: Path, b: Path | None) -> bool:
    if b is None or a.is_dir() or b.is_dir():
        return False
    from bench.studies.compare.revisions import is_revision

    return is_revision(str(a)) and is_revision(str(b))


def _only_results(a: Path, b: Path | None, point: list[str] | None, device: str | None) -> None:
    """Raises UserError for what goes with two git revisions alone."""
    if point:
        raise UserError(
            f"--point goes with two git revisions; {a} and {b} are not both revisions of a"
            " repository here"
        )
    go_with("two git revisions", False, {"--device": device})


def _revisions(
    a: str, b: str, points: list[str], unclear: Unclear, as_json: bool, how: dict[str, Any]
) -> int:
    """Time the points at both revisions -> the exit code."""
    from bench.report.tables.comparison import steps_document, steps_table
    from bench.studies.gate.baseline import parse_point

    steps = timed_in_turns(a, b, [parse_point(text, "--point") for text in points], **how)
    fails = [failed(step, unclear) for step in steps]
    if as_json:
        print_json({"a": a, "b": b, "steps": steps_document(steps, fails)})
    else:
        show(steps_table(steps, fails))
    return int(any(fails))


def _results_in(folder: Path, but: Path) -> list[list[Any]]:
    """Records of the readable results in a folder; one that cannot be read is left out with a
    warning."""
    from bench.results.store import RECORDS, read_records

    if not folder.is_dir():
        raise UserError(f"--history {folder}: no such folder")
    found = []
    for path in sorted(
        p.parent for p in folder.glob(f"*/{RECORDS}") if p.parent.resolve() != but.resolve()
    ):
        try:
            found.append(read_records(path))
        except UserError as error:
            say(f"warning: left out: {one_line(str(error))}")
    return found
