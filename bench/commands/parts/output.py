"""What a command prints: one JSON document or tables on stdout, notes on stderr."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import typer

from bench.core.errors import one_line
from bench.core.verbosity import verbosity

PIPED_WIDTH = 120


def print_json(document: Any) -> None:
    typer.echo(json.dumps(document, allow_nan=False))


def print_for_programs(document: Any, as_json: bool) -> None:
    """The last line of a command that also speaks to people: left out where a person reads."""
    if as_json or verbosity.quiet or not sys.stdout.isatty():
        print_json(document)


def say(text: str) -> None:
    """A note or a warning, which --quiet leaves out."""
    if not verbosity.quiet:
        complain(text)


def complain(text: str) -> None:
    """An error, or the verdict behind an exit code: --quiet or not."""
    typer.echo(text, err=True)


def show(*tables: Any) -> None:
    from rich.console import Console

    from bench.report.terminal import fitted

    class ToStdout(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # rich's own exits with 1; the reader has merely seen enough

    # Piped output has no width of its own: 80 columns would cut names, so it gets room.
    console = ToStdout(
        width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPED_WIDTH
    )
    for table in tables:
        console.print(fitted(table, console))


def exit_code(records: list[Any]) -> int:
    """Of a run: 2 where a user's own class or weights failed, which is said; 1 where another point
    ended in error or timeout, or none ended ok."""
    from bench.report.documents import run_failed
    from bench.run.user_code import user_code_failures

    failures = user_code_failures(records)
    for line in failures:
        complain(f"error: {one_line(line)}")
    return 2 if failures else int(run_failed(records))


def interrupted(directory: Path) -> str:
    """Where to go on, if it is still there."""
    if not directory.is_dir():
        return f"interrupted; {directory} was deleted meanwhile, and what was measured with it"
    return (
        f"interrupted; what was measured is in {directory}; go on with: ldt-bench run --resume"
        f" {directory}"
    )
