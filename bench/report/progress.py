"""Progress on stderr: a bar with the time left on a terminal, plain lines elsewhere, nothing with
--quiet."""

import sys
from pathlib import Path

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from bench.core.verbosity import verbosity


class SuiteProgress:
    """Shows which point is measured and how long the rest may take."""

    def __init__(self, name: str):
        self.console = Console(file=sys.stderr)
        self.directory: Path | None = None
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=verbosity.quiet or not self.console.is_terminal,
        )
        self.task = self.bar.add_task(escape(f"{name}: starting"), total=None)

    def __enter__(self) -> "SuiteProgress":
        self.bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.bar.stop()

    def opened(self, directory: Path) -> None:
        self.directory = directory
        self.note(f"results in {directory}")

    def watch(self, done: int, total: int, label: str) -> None:
        self.bar.update(self.task, completed=done, total=total, description=escape(label))
        if not self.console.is_terminal:
            self._line(f"[{done}/{total}] {label}")

    def note(self, text: str, *, always: bool = False) -> None:
        """A line that stays, above the bar where there is one; always: whatever --quiet says."""
        if always and verbosity.quiet:
            print(text, file=sys.stderr, flush=True)
        elif self.console.is_terminal and not verbosity.quiet:
            self.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            self._line(text)

    def say(self, text: str) -> None:
        """Say what happens now."""
        self.bar.update(self.task, description=escape(text))
        if not self.console.is_terminal:
            self._line(text)

    def _line(self, text: str) -> None:
        if not verbosity.quiet:
            print(text, file=sys.stderr, flush=True)


class Spinner:
    """One task, on a terminal alone: its name and its time so far; with `at`, a bar and the
    time left.

    It disappears when the task ends, so that a short command leaves no trace."""

    def __init__(self, text: str):
        self.console = Console(file=sys.stderr)
        self.text = text
        self.bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            _IfCounted(BarColumn(bar_width=20)),
            _IfCounted(MofNCompleteColumn()),
            TimeElapsedColumn(),
            _IfCounted(TextColumn("left")),
            _IfCounted(TimeRemainingColumn()),
            console=self.console,
            transient=True,
            disable=verbosity.quiet or not self.console.is_terminal,
        )
        self.task = self.bar.add_task(escape(text), total=None)

    def __enter__(self) -> "Spinner":
        self.bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.bar.stop()

    def say(self, what: str) -> None:
        self.bar.update(self.task, description=escape(f"{self.text}: {what}"))

    def at(self, done: int, total: int, what: str = "") -> None:
        """`done` of `total` are finished."""
        self.bar.update(self.task, completed=done, total=total)
        if what:
            self.say(what)


class _IfCounted(ProgressColumn):
    """A column that is empty until the total is known."""

    def __init__(self, column: ProgressColumn):
        super().__init__(column.get_table_column())
        self.column = column

    def render(self, task: Task) -> RenderableType:
        return "" if task.total is None else self.column.render(task)
