"""Progress on stderr: a bar with the time left on a terminal, plain lines elsewhere."""

import sys
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class SuiteProgress:
    """Shows which point is measured and how long the rest may take."""

    def __init__(self, name: str):
        self.console = Console(file=sys.stderr)
        self.directory: Path | None = None
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=None), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("left"), TimeRemainingColumn(), console=self.console, disable=not self.console.is_terminal,
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
            print(f"[{done}/{total}] {label}", file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """A line that stays, above the bar where there is one."""
        if self.console.is_terminal:
            self.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """What is going on now."""
        self.bar.update(self.task, description=escape(text))
        if not self.console.is_terminal:
            print(text, file=sys.stderr, flush=True)


class Spinner:
    """One thing of unknown length."""

    def __init__(self, text: str):
        self.console = Console(file=sys.stderr)
        self.text, self.status = text, self.console.status(text)

    def __enter__(self) -> "Spinner":
        self.status.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.status.stop()

    def say(self, what: str) -> None:
        self.status.update(escape(f"{self.text}: {what}"))
