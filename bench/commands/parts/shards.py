"""A share of a suite, or all shares side by side on the cards of this machine."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.commands.parts.options import go_with
from bench.commands.parts.output import say
from bench.core.errors import EnvironmentFault, UserError

ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Measure a share of the points, and the anchors that every share has; then `merge`.",
        show_default=False,
    ),
]
ShardsHere = Annotated[
    int | None,
    typer.Option(
        help="Measure so many shares side by side, one for each GPU here, and merge them.",
        show_default=False,
    ),
]


def check_alone(
    shards_here: int | None,
    shard: str | None,
    gpus: int | None,
    resume: Path | None,
    on: str | None,
    dry_run: bool,
    weights: list[str] | None,
) -> None:
    """Raises UserError for an option of one run beside --shards-here."""
    of_one = {"--shard": shard, "--gpus": gpus, "--resume": resume, "--on": on}
    of_one |= {"--dry-run": dry_run, "--weights": weights}
    go_with("one run, not with --shards-here", shards_here is None, of_one)


def with_shard(suite: Any, text: str | None, resume: Path | None) -> Any:
    """The suite as a share of it: the one asked for, else the one that the result to go on with is
    of.  Raises UserError."""
    from bench.results.store import read_suite
    from bench.run.shards import parse_shard

    shard = parse_shard(text) if text is not None else None
    if resume is not None:
        begun = read_suite(resume).shard
        if shard not in (None, begun):
            of = f"shard {begun.index}/{begun.count}" if begun else "the whole suite"
            raise UserError(f"--shard {text}: {resume} is of {of}")
        shard = begun
    return suite.model_copy(update={"shard": shard})


@dataclass(frozen=True)
class SideBySide:
    """Shares of a suite, each in a process of its own."""

    suite: str
    count: int
    on_cpu: bool
    out: Path
    budget: str | None

    def measure(self) -> Path:
        """-> the merged result.  Raises UserError for more shares than cards, EnvironmentFault
        where one of them could not be measured: what the others have is kept."""
        from bench.results.merge import merge

        if self.count < 1:
            raise UserError(f"--shards-here {self.count}: expected 1 or more")
        places = self._places()
        started = [self._start(i, place) for i, place in enumerate(places, 1)]
        try:
            ended = [(process.communicate()[0], process.returncode) for process in started]
        except BaseException:
            for process in started:
                process.wait()  # each has the signal too, and keeps what it has
            raise
        found = [_directory(said) for said, _ in ended]
        kept = [directory for directory in found if directory is not None]
        failed = [i for i, (_, code) in enumerate(ended, 1) if code not in (0, 1)]
        if failed or len(kept) < self.count:
            there = f"; what was measured is in {', '.join(map(str, kept))}" if kept else ""
            which = ", ".join(f"{i}/{self.count}" for i in failed) or "one"
            raise EnvironmentFault(f"shard {which} was not measured{there}")
        say(f"merging {', '.join(map(str, kept))}")
        return kept[0] if len(kept) == 1 else merge(kept)

    def _places(self) -> list[tuple[str, set[int] | None]]:
        """(device, cores) of each share."""
        if self.on_cpu:
            cores = sorted(os.sched_getaffinity(0))
            each = len(cores) // self.count
            if not each:
                raise UserError(f"--shards-here {self.count}: this machine has {len(cores)} cores")
            return [("cpu", set(cores[i * each : (i + 1) * each])) for i in range(self.count)]
        import torch

        cards = torch.cuda.device_count()
        if self.count > cards:
            raise UserError(f"--shards-here {self.count}: this machine has {cards} GPUs")
        return [(f"cuda:{i}", None) for i in range(self.count)]

    def _start(self, index: int, place: tuple[str, set[int] | None]) -> subprocess.Popen:
        device, cores = place
        command = [sys.executable, "-m", "bench.cli", "run", self.suite, "--json", "--quiet"]
        command += ["--shard", f"{index}/{self.count}", "--device", device, "--out", str(self.out)]
        command += ["--budget", self.budget] if self.budget else []
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        if cores is not None:
            os.sched_setaffinity(process.pid, cores)  # its workers inherit it
        return process


def _directory(said: str) -> Path | None:
    """That a run's last line names."""
    try:
        return Path(json.loads(said.splitlines()[-1])["result_dir"])
    except (IndexError, ValueError, KeyError):
        return None
