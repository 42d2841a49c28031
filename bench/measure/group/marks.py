"""What each rank of a group last said of itself, in a folder that outlives it.  No torch."""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

WAITS, RUNS, FAILED = "waits", "runs", "failed"


@dataclass(frozen=True)
class Mark:
    """One rank's."""

    state: str
    """WAITS for the others, RUNS, or FAILED."""
    outcome: str = ""
    reason: str = ""
    at: float = 0.0
    """Seconds of the system's clock, which the ranks of a node share."""


class Marker:
    """Writes one rank's mark over the last one."""

    def __init__(self, folder: Path, rank: int):
        self._file = os.open(_path(folder, rank), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def __call__(self, state: str, outcome: str = "", reason: str = "") -> None:
        mark = {"state": state, "outcome": outcome, "reason": reason, "at": time.time()}
        line = json.dumps(mark).encode() + b"\n"
        os.pwrite(self._file, line, 0)
        os.ftruncate(self._file, len(line))


def read_marks(folder: Path, ranks: int) -> dict[int, Mark]:
    """Rank -> its mark, of those that got so far."""
    found = {}
    for rank in range(ranks):
        try:
            found[rank] = Mark(**json.loads(_path(folder, rank).read_text()))
        except (OSError, ValueError, TypeError):  # none yet, or half written
            continue
    return found


def laggards(folder: Path, ranks: int) -> str:
    """Which ranks a hanging group waits for, in words."""
    marks = read_marks(folder, ranks)
    waiting = {rank for rank, mark in marks.items() if mark.state == WAITS}
    late = [rank for rank in range(ranks) if rank not in waiting]
    if not late:
        return f"all {ranks} ranks wait for one another"
    if len(late) == ranks:
        return f"all {ranks} ranks were at work"
    return f"{named(late)} of {ranks} kept the others waiting"


def named(ranks: list[int]) -> str:
    """ "rank 1", "ranks 1, 3"."""
    return ("rank " if len(ranks) == 1 else "ranks ") + ", ".join(map(str, ranks))


def _path(folder: Path, rank: int) -> Path:
    return folder / f"rank-{rank}"
