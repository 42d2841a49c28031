"""Attention of the DiT: self, cross and joint, over one grid of tokens or several requests packed
end to end.

Shapes: B batch, N video tokens, L text tokens, D width, A heads, E head_dim.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from einops import rearrange
from torch import Tensor, nn

from models import kernels
from models.dit.windowed import WindowPlan, window_attention
from models.layers import Linear, apply_rope

Grid = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the tokens lie.  One grid: (B, N, D), every sample alike.  Several: (1, sum of N, D), a
    request after the other, each attending to itself alone."""

    grids: tuple[Grid, ...]
    positions: Tensor | tuple[Tensor, Tensor]
    """Of all tokens: sincos (N, D), or rope's cosines and sines (N, E/2)."""
    windows: tuple[WindowPlan, ...] = ()
    """For windowed attention, one a grid."""
    text_lengths: tuple[int, ...] = ()
    """L of each packed request."""
    lengths: tuple[int, ...] = field(init=False)
    """N of each request."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "lengths", tuple(t * h * w for t, h, w in self.grids))

    def shard(self, x: Tensor) -> Tensor:
        """Tokens of the video -> those that this process holds: all of them, but for a
        models.parallel.sequence.SpreadLayout."""
        return x

    def shard_text(self, x: Tensor) -> Tensor:
        """The same of joint text."""
        return x

    def gather(self, x: Tensor) -> Tensor:
        """The inverse of shard."""
        return x

    @property
    def packed(self) -> bool:
        return len(self.grids) > 1

    def spread(self, per_request: Tensor, lengths: tuple[int, ...] | None = None) -> Tensor:
        """A vector a request -> one that broadcasts over tokens.  (R, D) -> (B, 1, D), or packed
        (1, sum of N, D)."""
        if not self.packed:
            return per_request[:, None]
        lengths = lengths or self.lengths
        return torch.cat(
            [row.expand(1, n, -1) for row, n in zip(per_request, lengths, strict=True)], dim=1
        )

    def attend(self, q: Tensor, k: Tensor, v: Tensor, axis: str) -> Tensor:
        """Self-attention along `axis`: all, space, time or window.  (B, A, N, E) -> same."""
        if not self.packed:
            return AXES[axis](q, k, v, self, 0)
        parts = zip(*(x.split(self.lengths, dim=2) for x in (q, k, v)), strict=True)
        return torch.cat([AXES[axis](*qkv, self, i) for i, qkv in enumerate(parts)], dim=2)

    def cross(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Video tokens attend to text.  q (B, A, N, E), k and v (B, A, L, E) -> (B, A, N, E)."""
        if not self.packed:
            return kernels.attention(q, k, v)
        parts = zip(
            q.split(self.lengths, dim=2),
            k.split(self.text_lengths, dim=2),
            v.split(self.text_lengths, dim=2),
            strict=True,
        )
        return torch.cat([kernels.attention(*qkv) for qkv in parts], dim=2)

    def joint(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """All video tokens, then all text tokens, in one attention.  (B, A, N + L, E) -> same."""
        if not self.packed:
            return kernels.attention(q, k, v)
        video, text = sum(self.lengths), sum(self.text_lengths)
        split = [
            (
                x[:, :, :video].split(self.lengths, dim=2),
                x[:, :, video:].split(self.text_lengths, dim=2),
            )
            for x in (q, k, v)
        ]
        assert q.shape[2] == video + text
        outs = [
            kernels.attention(*(torch.cat([vid[i], txt[i]], dim=2) for vid, txt in split))
            for i in range(len(self.grids))
        ]
        return torch.cat(
            [out[:, :, :n] for out, n in zip(outs, self.lengths, strict=True)]
            + [out[:, :, n:] for out, n in zip(outs, self.lengths, strict=True)],
            dim=2,
        )


def _all(q: Tensor, k: Tensor, v: Tensor, layout: Layout, index: int) -> Tensor:
    return kernels.attention(q, k, v)


def _space(q: Tensor, k: Tensor, v: Tensor, layout: Layout, index: int) -> Tensor:
    t, _, _ = layout.grids[index]
    folded = (rearrange(x, "b a (t s) e -> (b t) a s e", t=t) for x in (q, k, v))
    return rearrange(kernels.attention(*folded), "(b t) a s e -> b a (t s) e", t=t)


def _time(q: Tensor, k: Tensor, v: Tensor, layout: Layout, index: int) -> Tensor:
    t, _, _ = layout.grids[index]
    folded = (rearrange(x, "b a (t s) e -> (b s) a t e", t=t) for x in (q, k, v))
    return rearrange(kernels.attention(*folded), "(b s) a t e -> b a (t s) e", b=q.shape[0])


def _window(q: Tensor, k: Tensor, v: Tensor, layout: Layout, index: int) -> Tensor:
    return window_attention(q, k, v, layout.windows[index])


AXES: dict[str, Callable[[Tensor, Tensor, Tensor, Layout, int], Tensor]] = {
    "all": _all,
    "space": _space,
    "time": _time,
    "window": _window,
}


class QKNorm(nn.Module):
    """RMSNorm of queries and keys: per head (Stable Diffusion 3, arXiv 2403.03206) or across heads
    (Wan 2.1)."""

    def __init__(self, kind: str, num_heads: int, head_dim: int):
        super().__init__()
        self.across = kind == "across_heads"
        width = num_heads * head_dim if self.across else head_dim
        self.q, self.k = (nn.RMSNorm(width, eps=1e-6) for _ in range(2))


def qk_norm(kind: str, num_heads: int, head_dim: int) -> QKNorm | None:
    """The module that DiTConfig.qk_norm names."""
    return None if kind == "none" else QKNorm(kind, num_heads, head_dim)


def heads_first(
    norm: QKNorm | None, q: Tensor, k: Tensor, v: Tensor, rope: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Norm, heads before tokens, rotary positions.  (B, N, A, E) each -> (B, A, N, E) each."""
    norms = (None, None) if norm is None else (norm.q, norm.k)
    q, k = (_norm_rotate(x, n, rope) for x, n in zip((q, k), norms, strict=True))
    return q, k, v.transpose(1, 2)


def _norm_rotate(x: Tensor, norm: nn.RMSNorm | None, rope: tuple[Tensor, Tensor] | None) -> Tensor:
    """(B, N, A, E) -> (B, A, N, E)."""
    if norm is None and rope is None:
        return x.transpose(1, 2)
    if kernels.is_plain_cpu(x):
        weight, eps = (None, 0.0) if norm is None else (norm.weight, norm.eps)
        return kernels.norm_rotate(x, weight, eps, *(rope or (None, None))).transpose(1, 2)
    if norm is not None:
        across = norm.weight.numel() > x.shape[-1]
        x = norm(x.flatten(-2)).view_as(x) if across else norm(x)
    x = x.transpose(1, 2)
    return x if rope is None else apply_rope(x, *rope)


class SelfAttention(nn.Module):
    """Multi-head self-attention with one fused QKV projection, through SDPA."""

    def __init__(self, width: int, num_heads: int, norm: str, out: bool = True):
        """out: with the projection that follows attention."""
        super().__init__()
        self.num_heads = num_heads
        self.qkv = Linear(width, 3 * width)
        self.norm = qk_norm(norm, num_heads, width // num_heads)
        self.proj = Linear(width, width) if out else None

    def project(
        self, x: Tensor, rope: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, N, D) -> queries, keys, values (B, A, N, E)."""
        q, k, v = rearrange(
            self.qkv(x), "b n (three a e) -> three b n a e", three=3, a=self.num_heads
        )
        return heads_first(self.norm, q, k, v, rope)

    def forward(
        self, x: Tensor, layout: Layout, rope: tuple[Tensor, Tensor] | None, axis: str
    ) -> Tensor:
        """x (B, N, D) -> (B, N, D)."""
        out = layout.attend(*self.project(x, rope), axis)
        return self.proj(rearrange(out, "b a n e -> b n (a e)"))


class CrossAttention(nn.Module):
    """Video tokens attend to text tokens, with one fused KV projection."""

    def __init__(self, width: int, num_heads: int, norm: str):
        super().__init__()
        self.num_heads = num_heads
        self.q = Linear(width, width)
        self.kv = Linear(width, 2 * width)
        self.norm = qk_norm(norm, num_heads, width // num_heads)
        self.proj = Linear(width, width)

    def forward(self, x: Tensor, text: Tensor, layout: Layout) -> Tensor:
        """x (B, N, D), text (B, L, D) -> (B, N, D)."""
        q = rearrange(self.q(x), "b n (a e) -> b n a e", a=self.num_heads)
        k, v = rearrange(self.kv(text), "b l (two a e) -> two b l a e", two=2, a=self.num_heads)
        out = layout.cross(*heads_first(self.norm, q, k, v, None))
        return self.proj(rearrange(out, "b a n e -> b n (a e)"))
