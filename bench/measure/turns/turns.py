"""Two checkouts in turns, until the ratio of their times is clear or time is up.  No torch.

Two processes of the very same code differ by several per cent for as long as they live: by where
their memory came to lie, most likely.  So a block of turns has a fresh pair of processes, and the
interval is that of the blocks' ratios.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import exp, log, sqrt
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from bench.core.errors import UserError
from bench.measure.worker.parent import child_environment

MODULE = "bench.measure.turns.side"
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""Fewer pages, so that it matters less where they lie: pairs of one code then differ by 3 % in the
place of 8 % on two cores (docs/methodology.md)."""
ROUNDS, MIN_BLOCKS = 6, 5
CONFIDENCE = 0.99
"""Of the interval, which is looked at after every block; a gate that cries wolf is switched off."""


@dataclass(frozen=True)
class Asked:
    """A stage of a point, by the names that both checkouts know it by."""

    model: str
    workload: str
    recipe: str
    stage: str = "denoise_step"
    set: dict[str, Any] = field(default_factory=dict)
    device: str | None = None

    @property
    def label(self) -> str:
        return f"{self.model} {self.workload} {self.recipe}"


class Side:
    """One checkout's process, which begins to build the point.  Use as a context manager."""

    def __init__(
        self, name: str, folder: Path, asked: Asked, *, count: bool, code: Path | None = None
    ):
        """folder: from which the model's path is taken.  count: its FLOPs, too.  code: a checkout
        of this package that is run in the place of the installed one."""
        self.name = name
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the side
        read_fd, write_fd = os.pipe()
        environment = child_environment() | HUGE_PAGES
        if code is not None:
            environment["PYTHONPATH"] = os.pathsep.join([str(code), environment["PYTHONPATH"]])
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", MODULE, "--events-fd", str(write_fd)],
            stdin=subprocess.PIPE,
            stdout=self._said,
            stderr=self._said,
            pass_fds=[write_fd],
            cwd=folder,
            env=environment,
            start_new_session=True,
        )
        os.close(write_fd)
        self._answers = os.fdopen(read_fd, "r")
        self._send(json.dumps(vars(asked) | {"count": count}))

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def built(self) -> tuple[int, str]:
        """FLOPs of one call (0 where they were not asked for) and the kind of device, once it is
        built.  Raises UserError where it cannot be."""
        answer = self._answer()
        self._process.send_signal(signal.SIGSTOP)
        return answer["flops"], answer["device"]

    def visit(self) -> list[float]:
        """Seconds of calls, one after another.  Raises UserError where the process died.

        Between visits the process is stopped: its threads wait for work by spinning, on the cores
        that the other side needs."""
        self._process.send_signal(signal.SIGCONT)
        self._send("{}")
        seconds = self._answer()["seconds"]
        self._process.send_signal(signal.SIGSTOP)
        return seconds

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._answers.close()
        self._said.close()

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the next answer says how it ended

    def _answer(self) -> dict[str, Any]:
        line = self._answers.readline()
        if not line:
            code = self._process.wait()
            self._said.seek(0)
            said = self._said.read().decode(errors="replace").strip().splitlines()
            self.close()
            raise UserError(f"{self.name}: its process ended with {code}: {(said or [''])[-1]}")
        answer = json.loads(line)
        if "error" in answer:
            self.close()
            raise UserError(f"{self.name}: {answer['error']}")
        return answer


@dataclass(frozen=True)
class Block:
    """Medians of the visits of one pair of processes, seconds."""

    a_s: list[float]
    b_s: list[float]

    @property
    def log_ratio(self) -> float:
        """Of b over a: the median of the rounds."""
        return median(log(b / a) for a, b in zip(self.a_s, self.b_s, strict=True))


@dataclass(frozen=True)
class Turns:
    """Blocks of turns, and seconds of b over seconds of a with its interval."""

    blocks: list[Block]
    ratio: tuple[float, float, float]


def take_turns(visits: Sequence[Callable[[], list[float]]], rounds: int = ROUNDS) -> Block:
    """Rounds of both, each in the other order (ABBA).  visits: of a and of b, seconds of some
    calls."""
    seconds: list[list[float]] = [[], []]
    for visit in visits:
        visit()  # warms up
    for i in range(rounds):
        for side in ((0, 1), (1, 0))[i % 2]:
            seconds[side].append(median(visits[side]()))
    return Block(*seconds)


def time_until_clear(
    block: Callable[[], Block],
    is_clear: Callable[[tuple[float, float, float]], bool],
    now: Callable[[], float],
    max_s: float,
) -> Turns:
    """Blocks until their ratio is clear, MIN_BLOCKS at least, or `max_s` are over."""
    began, blocks = now(), []
    while True:
        blocks.append(block())
        over = now() - began >= max_s and len(blocks) >= 2
        if len(blocks) < MIN_BLOCKS and not over:
            continue
        ratio = ratio_of([one.log_ratio for one in blocks])
        if over or is_clear(ratio):
            return Turns(blocks, ratio)


def ratio_of(log_ratios: Sequence[float]) -> tuple[float, float, float]:
    """Their mean with Student's interval, as ratios."""
    from scipy.stats import t

    n, middle = len(log_ratios), mean(log_ratios)
    half = float(t.ppf((1 + CONFIDENCE) / 2, n - 1)) * stdev(log_ratios) / sqrt(n)
    return exp(middle), exp(middle - half), exp(middle + half)
