"""Features kept between the evaluations of a trajectory, and used again on a fixed schedule
(models.caching.schedules).

`apply_cache(denoiser, config)` changes how a denoiser runs until `remove()`: own ones here, public
ones by diffusers' hooks (models.caching.hooks).  Each branch of guidance has a state of its own,
and `begin` forgets them all.

    cache = apply_cache(pipeline.denoiser, config) # after compiling its blocks, where they are
    compiled
    cache.begin(evaluations)                       # of each branch
    ... for each evaluation: denoiser(x, t, **condition)
    ...                      with cache.branch("unconditional"): denoiser(x, t, **unconditional)
    cache.executed                                 # what ran, for exact counts

Shapes: B batch, N tokens, D width.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, get_args

from torch import Tensor, nn

from models.caching.schedules import CacheConfig, OwnCache
from models.dit.model import SpatioTemporalDiT

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


@dataclass
class Extrapolated:
    """A feature as a function of the evaluation's index: as last computed, or continued along the
    last two."""

    order: int
    """0: reuse; 1: the straight line through the last two (TaylorSeer's first order)."""
    known: list[tuple[int, Tensor]] = field(default_factory=list)

    def store(self, index: int, value: Tensor) -> None:
        """Raises ValueError where the indices do not rise."""
        if self.known and index <= self.known[-1][0]:
            raise ValueError(f"evaluation {index} after {self.known[-1][0]}: they must rise")
        self.known = (
            [*self.known[-self.order :], (index, value)] if self.order else [(index, value)]
        )

    def at(self, index: int) -> Tensor:
        last, value = self.known[-1]
        if len(self.known) == 1:  # one point has no slope
            return value
        before, earlier = self.known[0]
        return value + (value - earlier) * ((index - last) / (last - before))


class Cache:
    """The schedule and its bookkeeping, common to all kinds."""

    def __init__(self, denoiser: nn.Module, config: CacheConfig):
        self.denoiser, self.config = denoiser, config
        self.executed: list[Executed] = []
        self._branch, self._schedule, self._done = CONDITIONAL, (), {}
        self._forward = denoiser.forward
        denoiser.forward = self._evaluate  # on the instance, so that the module stays what it is
        denoiser.cache = self

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
        del self.denoiser.forward, self.denoiser.cache
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
        computed = (
            self._schedule[index] or first
        )  # an expert that has not run yet has nothing to use again
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
            self._outputs[key] = self._forward(x, t, **condition)
        return self._outputs[key]


class BlockCache(Cache):
    """The first block runs; what the others added to its output is used again, or extrapolated.
    Own models."""

    def __init__(self, denoiser: SpatioTemporalDiT, config: CacheConfig):
        if len(denoiser.blocks) < 2:
            raise ValueError(
                f"cache {config.kind}: a denoiser of {len(denoiser.blocks)} block has none to"
                " leave out"
            )
        super().__init__(denoiser, config)
        self._order = 1 if config.kind == "taylor" else 0
        self._index: int | None = (
            None  # of the evaluation that runs; None outside, as for forward_packed
        )
        self._reuse = False
        self._entered: Tensor | None = None
        self._blocks = list(denoiser.blocks)
        for i, block in enumerate(self._blocks):
            denoiser.blocks[i] = _CachedBlock(block, i, self)

    def remove(self) -> None:
        super().remove()
        for i, block in enumerate(self._blocks):
            self.denoiser.blocks[i] = block

    def _forget(self) -> None:
        self._added: dict[str, Extrapolated] = {}

    def _run(
        self, index: int, computed: bool, x: Tensor, t: Tensor, condition: dict[str, Tensor]
    ) -> Tensor:
        self._index, self._reuse = index, not computed
        try:
            return self._forward(x, t, **condition)
        finally:
            self._index, self._reuse, self._entered = None, False, None

    def block(
        self, i: int, block: nn.Module, x: Tensor, text: Tensor | None, rest: tuple[Any, ...]
    ) -> tuple[Tensor, Tensor | None]:
        """Block i at tokens x (B, N, D) -> tokens and text after it.

        A control branch adds to the tokens between blocks.  Its first hint is part of what enters
        block 1; what it adds further on is in the kept difference, and dropped while that is
        used."""
        if i == 1:
            self._entered = x
        if not self._reuse or i == 0:
            x, text = block(x, text, *rest)
        if i == len(self._blocks) - 1 and self._index is not None:
            added = self._added.setdefault(self._branch, Extrapolated(self._order))
            if self._reuse:
                return self._entered + added.at(self._index), text
            added.store(self._index, x - self._entered)
        return x, text


class _CachedBlock(nn.Module):
    """A block under a BlockCache.  Whatever else is asked of it, the block itself answers."""

    def __init__(self, block: nn.Module, index: int, cache: BlockCache):
        super().__init__()
        self.block, self.index = block, index
        object.__setattr__(self, "cached_by", cache)

    def forward(self, x: Tensor, text: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor | None]:
        return self.cached_by.block(self.index, self.block, x, text, rest)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("block"), name)


def apply_cache(denoiser: nn.Module, config: CacheConfig) -> Cache:
    """Let an own or a public denoiser run under a cache.

    Raises ValueError with the reason where it cannot."""
    if getattr(denoiser, "cache", None) is not None:
        raise ValueError(
            f"the denoiser has a cache already ({denoiser.cache.config.kind}); remove() it first"
        )
    if config.kind == "whole-step":
        return WholeStepCache(denoiser, config)
    if not isinstance(denoiser, SpatioTemporalDiT):
        from models.caching.hooks import DiffusersCache  # diffusers takes seconds to import

        return DiffusersCache(denoiser, config)
    if config.kind not in get_args(OwnCache):
        raise ValueError(
            f"cache {config.kind} is diffusers', for public models; own ones take "
            f"{', '.join(get_args(OwnCache))}"
        )
    return BlockCache(denoiser, config)


def blocks_run(denoiser: nn.Module, executed: list[Executed]) -> int:
    """Block calls of an own denoiser (its control branch's apart) in what was executed under its
    cache."""
    depth = len(denoiser.blocks)
    reused = {"whole-step": 0}.get(denoiser.cache.config.kind, 1)
    return sum(depth if e.computed else reused for e in executed)
