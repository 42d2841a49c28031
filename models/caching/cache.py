"""Features kept between the evaluations of a trajectory, and used again on a fixed schedule
(models.caching.schedules).

A cache answers for a denoiser (`Denoiser.through`) until `remove()`.  Each branch of guidance has a
state of its own, and `begin` forgets them all.

    cache = apply_cache(pipeline.denoiser, config) # after compiling its blocks, where they are
    compiled
    cache.begin(evaluations)                       # of each branch
    ... for each evaluation: denoiser(x, t, **condition)
    ...                      with cache.branch("unconditional"): denoiser(x, t, **unconditional)
    cache.executed                                 # what ran, for exact counts
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor

from models.caching.schedules import CacheConfig
from models.denoiser import Denoiser

CONDITIONAL, UNCONDITIONAL = "conditional", "unconditional"


@dataclass(frozen=True)
class Executed:
    """One evaluation that took place."""

    branch: str
    index: int
    """Within its branch."""
    computed: bool
    """In full; else with what the cache holds."""
    expert: int = 0
    """Of a public model that holds several."""


class Cache:
    """The schedule and its bookkeeping, common to all kinds."""

    def __init__(self, denoiser: Denoiser, config: CacheConfig):
        self.denoiser, self.config = denoiser, config
        self.executed: list[Executed] = []
        self._branch, self._schedule, self._done = CONDITIONAL, (), {}
        denoiser.cache, denoiser.through = self, self._evaluate

    def begin(self, evaluations: int) -> None:
        """Forget everything: a new trajectory of so many evaluations a branch."""
        self._schedule = self.config.schedule(evaluations)
        self._branch, self._done, self.executed = CONDITIONAL, {}, []
        self._forget()

    @contextmanager
    def branch(self, name: str) -> Iterator[None]:
        """Evaluations within have the state of this branch."""
        before, self._branch = self._branch, name
        try:
            yield
        finally:
            self._branch = before

    def remove(self) -> None:
        """Leave the denoiser as it was."""
        self.denoiser.cache = self.denoiser.through = None
        self._forget()

    def _evaluate(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        """Raises ValueError where `begin` has not said that so many evaluations would follow."""
        index, expert = self._done.get(self._branch, 0), getattr(self.denoiser, "expert", 0)
        if index >= len(self._schedule):
            raise ValueError(
                f"evaluation {index + 1} of the {self._branch} branch, where begin() was told of "
                f"{len(self._schedule)}; call begin() before each trajectory"
            )
        first = not any((e.branch, e.expert) == (self._branch, expert) for e in self.executed)
        # An expert that has not run yet has nothing to use again.
        computed = self._schedule[index] or first
        out = self._run(index, computed, x, t, condition)
        self._done[self._branch] = index + 1
        self.executed.append(Executed(self._branch, index, computed, expert))
        return out

    def _run(
        self, index: int, computed: bool, x: Tensor, t: Tensor, condition: dict[str, Tensor]
    ) -> Tensor:
        raise NotImplementedError

    def _forget(self) -> None:
        raise NotImplementedError


class WholeStepCache(Cache):
    """The denoiser's output is used again.  Own and public models."""

    def _forget(self) -> None:
        self._outputs: dict[tuple[str, int], Tensor] = {}

    def _run(
        self, index: int, computed: bool, x: Tensor, t: Tensor, condition: dict[str, Tensor]
    ) -> Tensor:
        key = (self._branch, getattr(self.denoiser, "expert", 0))
        if computed:
            self._outputs[key] = self.denoiser.compute(x, t, **condition)
        return self._outputs[key]
