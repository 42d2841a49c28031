"""Windowed attention run: through FlexAttention where it can be compiled, else tile by tile through
SDPA.

Both read the same spans (models.dit.windows) and are tested against dense attention under the same
mask.  FlexAttention can not be counted on meta, and uncompiled it writes all N x N scores out; the
tiles can, and their products are exactly the attended pairs.

Shapes: B batch, A heads, N tokens, E head_dim.
"""

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from models.dit.windows import Triple, grid_spans

GATHERED_ELEMENTS = (
    2**28
)  # keys (and as many values) copied at a time by the fallback: 0.5 GB each in bfloat16
GATHERED_ON_META = (
    2**31
)  # the same while counting, where more tiles at a time are fewer operators to trace
FLEX_MIN_HEAD_DIM = 16


@dataclass(frozen=True, eq=False)
class WindowPlan:
    """Which tokens of one grid see which, as indices on a device."""

    grid: Triple
    window: Triple
    window_tiles: Triple
    device: torch.device

    @cached_property
    def tiles(self) -> list[tuple[Tensor, Tensor]]:
        """Tiles of like size together: query indices (n, tokens of a tile), key indices (n, tokens
        it sees)."""
        with torch.inference_mode(False):  # as in SpatioTemporalDiT.layout
            return self._tiles()

    def _tiles(self) -> list[tuple[Tensor, Tensor]]:
        ids = torch.arange(self.grid[0] * self.grid[1] * self.grid[2]).view(self.grid)
        groups: dict[tuple, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for spans in grid_spans(self.grid, self.window, self.window_tiles):
            pair = tuple(
                ids[tuple(slice(r.start, r.stop) for r in ranges)].flatten()
                for ranges in ([s.query for s in spans], [s.keys for s in spans])
            )
            groups[tuple(len(s.query) for s in spans), tuple(len(s.keys) for s in spans)].append(
                pair
            )
        return [
            (
                torch.stack([q for q, _ in pairs]).to(self.device),
                torch.stack([k for _, k in pairs]).to(self.device),
            )
            for pairs in groups.values()
        ]

    @cached_property
    def order(self) -> tuple[Tensor, Tensor]:
        """Token indices tile by tile, so that FlexAttention's blocks are dense or empty; and the
        way back.  (N,) each."""
        ids = torch.arange(self.grid[0] * self.grid[1] * self.grid[2]).view(self.grid)
        order = torch.cat(
            [
                ids[tuple(slice(s.query.start, s.query.stop) for s in spans)].flatten()
                for spans in grid_spans(self.grid, self.window, self.window_tiles)
            ]
        )
        return order.to(self.device), order.argsort().to(self.device)

    @cached_property
    def seen(self) -> tuple[Tensor, Tensor, Tensor]:
        """For each token in tile order: its place, and the first and one past the last place seen,
        (3, N) each."""
        order, _ = (x.cpu() for x in self.order)
        n = order.numel()
        first, last = torch.empty(3, n, dtype=torch.int32), torch.empty(3, n, dtype=torch.int32)
        at = 0
        for spans in grid_spans(self.grid, self.window, self.window_tiles):
            size = len(spans[0].query) * len(spans[1].query) * len(spans[2].query)
            for axis, span in enumerate(spans):
                first[axis, at : at + size], last[axis, at : at + size] = (
                    span.keys.start,
                    span.keys.stop,
                )
            at += size
        _, h, w = self.grid
        place = torch.stack([order // (h * w), order // w % h, order % w]).int()
        return place.to(self.device), first.to(self.device), last.to(self.device)

    def block_mask(self, compiled: bool):
        """FlexAttention's block mask in tile order."""
        from torch.nn.attention.flex_attention import create_block_mask

        # Axis by axis: under vmap torch 2.7 takes one index that is a tensor, and not one beside a
        # number.
        axes = list(
            zip(*(x.unbind(0) for x in self.seen), strict=True)
        )  # of (N,): place, first and last seen

        def sees(b: Tensor, a: Tensor, q: Tensor, k: Tensor) -> Tensor:
            inside = [(place[k] >= first[q]) & (place[k] < last[q]) for place, first, last in axes]
            return inside[0] & inside[1] & inside[2]

        n = self.seen[0].shape[1]
        return create_block_mask(sees, None, None, n, n, device=self.device, _compile=compiled)


def window_attention(q: Tensor, k: Tensor, v: Tensor, plan: WindowPlan) -> Tensor:
    """(B, A, N, E) -> same: FlexAttention on a GPU that can compile it, tiles elsewhere."""
    if q.is_cuda and can_compile() and flex_takes(q.shape[-1]):
        return flex_windows(q, k, v, plan, compiled=True)
    return tiled_windows(q, k, v, plan)


def flex_takes(head_dim: int) -> bool:
    """FlexAttention's kernels want a power of two of at least 16."""
    return head_dim >= FLEX_MIN_HEAD_DIM and head_dim & (head_dim - 1) == 0


@lru_cache
def can_compile() -> bool:
    """Triton is what torch.compile needs on a GPU."""
    from torch.utils._triton import has_triton

    return has_triton()


def flex_windows(q: Tensor, k: Tensor, v: Tensor, plan: WindowPlan, *, compiled: bool) -> Tensor:
    """Through FlexAttention (arXiv 2412.05496), tokens in tile order.  (B, A, N, E) -> same."""
    mask = _block_mask(plan, compiled)
    order, back = plan.order
    return _flex(compiled)(q[:, :, order], k[:, :, order], v[:, :, order], block_mask=mask)[
        :, :, back
    ]


@lru_cache(maxsize=4)
def _block_mask(plan: WindowPlan, compiled: bool):
    return plan.block_mask(compiled)


@lru_cache
def _flex(compiled: bool):
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False) if compiled else flex_attention


def tiled_windows(q: Tensor, k: Tensor, v: Tensor, plan: WindowPlan) -> Tensor:
    """Tile by tile: keys and values are gathered for each tile, a bounded number of tiles at a
    time."""
    batch, heads, _, head_dim = q.shape
    out = torch.empty_like(q)
    for queries, keys in plan.tiles:
        per_tile = batch * heads * head_dim * keys.shape[1]
        at_once = max(1, (GATHERED_ON_META if q.is_meta else GATHERED_ELEMENTS) // per_tile)
        for q_ids, k_ids in zip(queries.split(at_once), keys.split(at_once), strict=True):
            part = F.scaled_dot_product_attention(
                *(
                    rearrange(x[:, :, ids], "b a n t e -> (b n) a t e")
                    for x, ids in ((q, q_ids), (k, k_ids), (v, k_ids))
                )
            )
            out[:, :, q_ids] = rearrange(part, "(b n) a t e -> b a n t e", b=batch)
    return out
