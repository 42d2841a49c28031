"""What each rank of a group last said of itself, in a folder that outlives it.  No torch."""

import contextlib
import faulthandler
import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

ANSWER_S = 0.5  # a rank that can answer writes its stack within milliseconds
GONE_S, POLL_S = 30.0, 0.02  # a CUDA context takes seconds to go
INNERMOST = 6  # lines of a stack
COLLECTIVE = ("torch/distributed/", "models/parallel/mesh.py")
"""In the innermost lines of a rank that waits for others in the middle of a call."""
WAITS, RUNS, FAILED = "waits", "runs", "failed"


@dataclass(frozen=True)
class Mark:
    """One rank's."""

    state: str
    """WAITS for the others, RUNS, or FAILED."""
    outcome: str = ""
    reason: str = ""
    pid: int = 0
    at: float = 0.0
    """Seconds of the system's clock, which the ranks of a node share."""


class Marker:
    """Writes one rank's mark over the last one."""

    def __init__(self, folder: Path, rank: int):
        self._file = os.open(_path(folder, rank), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        # Written by the signal's handler itself, so that a rank inside a collective answers too.
        self._stack = _stack(folder, rank).open("w")
        faulthandler.register(signal.SIGUSR1, self._stack, all_threads=False)

    def __call__(self, state: str, outcome: str = "", reason: str = "") -> None:
        mark = {"state": state, "outcome": outcome, "reason": reason, "at": time.time()}
        mark["pid"] = os.getpid()
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
    """Which ranks a hanging group waits for, in words.  Its processes are still there."""
    marks = read_marks(folder, ranks)
    stacks = _stacks(folder, marks)
    waiting = {
        rank
        for rank, mark in marks.items()
        if (rank in stacks or not stacks)  # one that is stopped has no answer
        and (mark.state == WAITS or _in_collective(stacks.get(rank, [])))
    }
    late = [rank for rank in range(ranks) if rank not in waiting]
    if not late:
        return f"all {ranks} ranks wait for one another"
    if len(late) == ranks:
        return f"all {ranks} ranks were at work"
    return f"{named(late)} of {ranks} kept the others waiting"


def _stacks(folder: Path, marks: dict[int, Mark]) -> dict[int, list[str]]:
    """Rank -> the innermost lines of its stack, of those that answer."""
    for mark in (mark for mark in marks.values() if mark.pid):  # 0 would be every process here
        with contextlib.suppress(ProcessLookupError):
            os.kill(mark.pid, signal.SIGUSR1)
    time.sleep(ANSWER_S)
    read = {rank: _stack(folder, rank).read_text().splitlines() for rank in marks}
    return {rank: lines[:INNERMOST] for rank, lines in read.items() if lines}


def _in_collective(lines: list[str]) -> bool:
    return any(place in line for line in lines for place in COLLECTIVE)


def wait_until_gone(folder: Path, ranks: int) -> None:
    """For the processes of a group whose launcher was killed, GONE_S at most."""
    deadline = time.monotonic() + GONE_S
    pids = [mark.pid for mark in read_marks(folder, ranks).values()]
    while any(_alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(POLL_S)


def _alive(pid: int) -> bool:
    """Does a process run, or stand stopped?  One that has ended may wait for its parent."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in ("Z", "X")


def named(ranks: list[int]) -> str:
    """ "rank 1", "ranks 1, 3"."""
    return ("rank " if len(ranks) == 1 else "ranks ") + ", ".join(map(str, ranks))


def _stack(folder: Path, rank: int) -> Path:
    return folder / f"stack-{rank}"


def _path(folder: Path, rank: int) -> Path:
    return folder / f"rank-{rank}"
