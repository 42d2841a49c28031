"""Caches of own denoisers, between their blocks.  Shapes: B batch, N tokens, D width."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from models.caching.cache import Cache, Executed
from models.caching.schedules import CacheConfig
from models.dit.model import SpatioTemporalDiT


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
        # Of the evaluation that runs; None outside, as for forward_packed.
        self._index: int | None = None
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
            return self.denoiser.compute(x, t, **condition)
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


def blocks_run(denoiser: nn.Module, executed: list[Executed]) -> int:
    """Block calls of an own denoiser (its control branch's apart) in what was executed under its
    cache."""
    depth = len(denoiser.blocks)
    reused = {"whole-step": 0}.get(denoiser.cache.config.kind, 1)
    return sum(depth if e.computed else reused for e in executed)
