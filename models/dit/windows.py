"""Windowed attention in three axes: which tokens see which.  No torch: the closed form counts by it
too.

The grid of tokens is cut into tiles of `window` tokens; a tile attends to `window_tiles` tiles
along each axis, itself in the middle, moved inwards at the border so that every tile sees as many
(sliding tile attention, arXiv 2502.04507). The last tile of an axis may be smaller.
"""

from dataclasses import dataclass
from itertools import product
from math import ceil, prod

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class Span:
    """One tile along one axis, and what it sees: token ranges."""

    query: range
    keys: range


def axis_spans(size: int, tile: int, tiles: int) -> list[Span]:
    """The tiles of one axis of `size` tokens, each seeing `tiles` tiles (all, where there are no
    more)."""
    count = ceil(size / tile)
    spans = []
    for i in range(count):
        first = min(max(i - tiles // 2, 0), max(count - tiles, 0))
        last = min(first + tiles, count)
        spans.append(
            Span(
                range(i * tile, min((i + 1) * tile, size)),
                range(first * tile, min(last * tile, size)),
            )
        )
    return spans


def grid_spans(grid: Triple, window: Triple, window_tiles: Triple) -> list[tuple[Span, Span, Span]]:
    """All tiles of a (time, height, width) grid of tokens."""
    return list(product(*map(axis_spans, grid, window, window_tiles)))


def attended_pairs(grid: Triple, window: Triple, window_tiles: Triple) -> int:
    """Pairs of query and key, of the N * N that full attention has."""
    return prod(
        sum(len(s.query) * len(s.keys) for s in axis_spans(n, tile, tiles))
        for n, tile, tiles in zip(grid, window, window_tiles, strict=True)
    )
