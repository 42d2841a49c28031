"""Progress on stderr: a bar with the time left on a terminal, plain lines elsewhere."""

import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bench.suite import Progress as SuiteState


class SuiteProgress:
    """Shows which point is measured and how long the rest may take."""

    def __init__(self, name: str):
        self.console = Console(file=sys.stderr)
        self.directory: Path | None = None
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=None), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("left"), TimeRemainingColumn(), console=self.console, disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task(f"{name}: starting", total=None)

    def __enter__(self) -> "SuiteProgress":
        self.bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.bar.stop()

    def opened(self, directory: Path) -> None:
        self.directory = directory
        self.say(f"results in {directory}")

    def watch(self, state: SuiteState) -> None:
        self.bar.update(self.task, completed=state.done, total=state.total, description=state.label)
        if not self.console.is_terminal:
            print(f"[{state.done}/{state.total}] {state.label}", file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        self.bar.update(self.task, description=text)
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
        self.status.update(f"{self.text}: {what}")
