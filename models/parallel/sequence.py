"""Tokens of one sample spread over ranks: Ulysses, Ring, and both.

Each rank holds neighbouring tokens and runs everything but attention on them alone.  Around
attention, Ulysses exchanges tokens for heads (arXiv 2309.14509), and Ring passes keys and values on
(arXiv 2310.01889); a ring of Ulysses groups is USP (arXiv 2405.07719).  Where tokens do not divide,
the last ranks hold zeros that no query sees.

Shapes: B batch, A heads, E head_dim; N tokens of all ranks, n of this one.  Ring ranks are outer:
token chunk i lies on ring rank i // U, Ulysses rank i % U.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import ceil

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from models.dit.attention import Layout
from models.parallel.mesh import Ranks
from models.parallel.ring import Spans, cut_out, ring_attention


@dataclass(frozen=True, eq=False)
class Cut:
    """Where the tokens of one sequence lie: in chunks of like size, the last ones padded."""

    tokens: int
    """N."""
    ranks: int

    @property
    def chunk(self) -> int:
        """Tokens a rank, padding included."""
        return ceil(self.tokens / self.ranks)

    def of(self, first: int, count: int) -> int:
        """True tokens on `count` ranks from rank `first` on."""
        start, stop = first * self.chunk, (first + count) * self.chunk
        return max(0, min(stop, self.tokens) - start)

    def share(self, x: Tensor, rank: int, dim: int) -> Tensor:
        """A rank's chunk of x, which holds N along dim."""
        held = self.of(rank, 1)
        start = min(rank * self.chunk, self.tokens)
        return _padded(x.narrow(dim, start, held), self.chunk, dim)


@dataclass(frozen=True, eq=False, kw_only=True)
class SpreadLayout(Layout):
    """One grid whose tokens lie on several ranks.  `positions` become this rank's alone."""

    ulysses: Ranks | None
    ring: Ranks | None

    def __post_init__(self) -> None:
        super().__post_init__()
        both = self.positions if isinstance(self.positions, tuple) else (self.positions,)
        mine = tuple(self.video.share(x, self._rank, 0) for x in both)
        own = mine if isinstance(self.positions, tuple) else mine[0]
        object.__setattr__(self, "positions", own)

    @property
    def video(self) -> Cut:
        return Cut(self.lengths[0], self._across * self._around)

    @property
    def text(self) -> Cut:
        """Of joint text, which is cut as the video is."""
        return Cut(sum(self.text_lengths), self._across * self._around)

    def shard(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, n, D)."""
        return self.video.share(x, self._rank, 1)

    def shard_text(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, l, D)."""
        return self.text.share(x, self._rank, 1)

    def gather(self, x: Tensor) -> Tensor:
        """(B, n, D) -> (B, N, D)."""
        for ranks in (self.ulysses, self.ring):  # the inner first, so that chunks stay in order
            if ranks is not None:
                x = torch.cat(ranks.gather(x).unbind(0), dim=1)
        return x[:, : self.lengths[0]]

    def attend(self, q: Tensor, k: Tensor, v: Tensor, axis: str) -> Tensor:
        """(B, A, n, E) -> same."""
        nothing = Cut(0, self.video.ranks)
        return self._attend(q, k, v, nothing, partial(super().attend, axis=axis))

    def joint(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """This rank's video tokens, then its text tokens.  (B, A, n + l, E) -> same."""
        return self._attend(q, k, v, self.text, super().joint)

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, text: Cut, whole: Callable[..., Tensor]
    ) -> Tensor:
        """whole: attention of this group's heads over all tokens, where no ring cuts them."""
        chunks = [self.video.chunk, text.chunk]
        if self.ulysses is not None:
            q, k, v = _heads_for_tokens(torch.stack([q, k, v]), chunks, self.ulysses)
        spans = [self._spans(text, r) for r in range(self._around)]
        mine = spans[0 if self.ring is None else self.ring.index]
        if self.ring is None:
            out = whole(*(cut_out(x, mine) for x in (q, k, v)))
        else:
            out = ring_attention(cut_out(q, mine), k, v, spans, self.ring)
        out = _put_back(out, mine, q.shape[2])
        if self.ulysses is None:
            return out
        return _tokens_for_heads(out, chunks, self.ulysses)

    def _spans(self, text: Cut, ring_rank: int) -> Spans:
        """Where true tokens lie among those of one ring rank: the video's, then the text's."""
        first, padded = ring_rank * self._across, self._across * self.video.chunk
        video, texts = (cut.of(first, self._across) for cut in (self.video, text))
        return (0, video), (padded, texts)

    @property
    def _across(self) -> int:
        return 1 if self.ulysses is None else self.ulysses.size

    @property
    def _around(self) -> int:
        return 1 if self.ring is None else self.ring.size

    @property
    def _rank(self) -> int:
        inner = 0 if self.ulysses is None else self.ulysses.index
        outer = 0 if self.ring is None else self.ring.index
        return outer * self._across + inner


def _heads_for_tokens(qkv: Tensor, chunks: list[int], ranks: Ranks) -> tuple[Tensor, ...]:
    """All heads of few tokens -> few heads of all the group's tokens, in one exchange.

    (3, B, A, n + l, E) -> 3 x (B, A / U, U n + U l, E)."""
    sent = rearrange(qkv, "three b (u a) n e -> u three b a n e", u=ranks.size)
    got = ranks.exchange(sent)
    parts = got.split(chunks, dim=4)
    joined = [rearrange(x, "u three b a n e -> three b a (u n) e") for x in parts]
    return torch.cat(joined, dim=3).unbind(0)


def _tokens_for_heads(out: Tensor, chunks: list[int], ranks: Ranks) -> Tensor:
    """The way back.  (B, A / U, U n + U l, E) -> (B, A, n + l, E)."""
    parts = out.split([ranks.size * n for n in chunks], dim=2)
    split = [rearrange(x, "b a (u n) e -> u b a n e", u=ranks.size) for x in parts]
    got = ranks.exchange(torch.cat(split, dim=3))
    return rearrange(got, "u b a n e -> b (u a) n e")


def _put_back(x: Tensor, spans: Spans, length: int) -> Tensor:
    """The inverse of cut_out, with zeros between.  (B, A, true, E) -> (B, A, length, E)."""
    (_, video), (start, texts) = spans
    if video + texts == length:
        return x
    of_video, of_text = x.split([video, texts], dim=2)
    rest = length - start
    return torch.cat([_padded(of_video, start, 2), _padded(of_text, rest, 2)], dim=2)


def _padded(x: Tensor, length: int, dim: int) -> Tensor:
    """x with zeros behind it along dim."""
    missing = length - x.shape[dim]
    if missing == 0:
        return x
    return F.pad(x, (0, 0) * (x.ndim - 1 - dim) + (0, missing))
