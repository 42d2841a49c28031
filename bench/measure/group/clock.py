"""The clock of a group: a sample begins at once on all ranks and takes as long as the slowest."""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from bench.measure.group.marks import RUNS, WAITS
from bench.measure.timing.clock import Clock
from models.parallel.mesh import collectives_in


class GroupClock:
    """Every rank reads the same seconds, so that all of them decide alike whether to go on.

    The barrier is before what is timed; a rank's own seconds are kept beside."""

    def __init__(self, clock: Clock, group: Any, mark: Callable[[str], None]):
        """group: of gloo, whose barrier holds the host.  mark: hears what this rank does."""
        self.clock, self.group, self.mark = clock, group, mark
        self._taken: dict[float, tuple[float, Callable[[], Any]]] = {}
        """The group's seconds -> this rank's own, and the call, of the round that goes on: a
        baseline is timed in turns with the point, and only the point's are asked for."""
        self.own: dict[str, list[float]] = {}
        """This rank's seconds of each sample, by stage."""
        self.waiting: dict[str, float] = {}
        """Seconds of one call that this rank spent in collectives, by stage."""

    def time(self, call: Callable[[], Any]) -> float:
        self.mark(WAITS)
        dist.barrier(self.group)
        self.mark(RUNS)
        own = self.clock.time(call)
        self.mark(WAITS)
        slowest = self._largest(own)
        self.mark(RUNS)
        self._taken[slowest] = own, call
        return slowest

    def now(self) -> float:
        """Of the rank that is furthest on: limits are met by all at once."""
        return self._largest(self.clock.now())

    def keep(self, stage: str, samples: list[float]) -> None:
        """After a round of a stage, with what `time` gave; after its first one, a call more whose
        collectives are timed."""
        for seconds in samples:
            own, call = self._taken[seconds]
            self.own.setdefault(stage, []).append(own)
        if stage not in self.waiting:
            self.waiting[stage] = self._in_collectives(call)
        self._taken.clear()

    def _in_collectives(self, call: Callable[[], Any]) -> float:
        dist.barrier(self.group)
        with collectives_in() as timed:
            call()
        return timed.seconds()

    def _largest(self, seconds: float) -> float:
        held = torch.tensor(seconds, dtype=torch.float64)
        dist.all_reduce(held, dist.ReduceOp.MAX, self.group)
        return held.item()
