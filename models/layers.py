"""Building blocks of the transformers: positions, modulation, MLP, embedder, benchmark weights.

Shapes: B batch, N tokens, D width, A heads, E head_dim."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from models import draw, kernels


def sinusoidal_embedding(
    t: Tensor, dim: int, max_period: float = 10_000.0, shift: int = 0
) -> Tensor:
    """cos then sin of t over geometric frequencies.  t (B,) -> (B, dim), float32 (DiT, arXiv
    2212.09748).

    shift: 0 spaces dim/2 frequencies over dim/2 steps, 1 over dim/2 - 1."""
    half = dim // 2
    freqs = torch.exp(
        -math.log(max_period)
        * torch.arange(half, dtype=torch.float32, device=t.device)
        / (half - shift)
    )
    angles = t.float()[:, None] * freqs  # (B, dim/2)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def sincos_positions(grid: tuple[int, int, int], width: int, device: torch.device) -> Tensor:
    """Fixed positions of tokens ordered (t h w): DiT's two spatial axes of width/2 each, columns
    first, plus a time axis where there is more than one frame (Latte), so that an image gets
    exactly DiT's.  -> (N, width)."""
    t, h, w = grid

    def axis(n: int, dim: int) -> Tensor:
        omega = 1.0 / 10_000.0 ** (
            torch.arange(dim // 2, dtype=torch.float32, device=device) / (dim / 2)
        )
        angles = torch.arange(n, dtype=torch.float32, device=device)[:, None] * omega
        return torch.cat([angles.sin(), angles.cos()], dim=-1)  # (n, dim)

    cols = axis(w, width // 2)[None, None].expand(t, h, w, -1)
    rows = axis(h, width // 2)[None, :, None].expand(t, h, w, -1)
    space = torch.cat([cols, rows], dim=-1)  # (t, h, w, width)
    if t > 1:
        space = space + axis(t, width)[:, None, None]
    return rearrange(space, "t h w d -> (t h w) d")


def rope_angles(
    grid: tuple[int, int, int], axes: tuple[int, int, int], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Cosines and sines of rotary embedding (arXiv 2104.09864) in three axes; axes sum to E.  -> 2
    x (N, E/2)."""
    parts = []
    for i, (n, dim) in enumerate(zip(grid, axes, strict=True)):
        freqs = 10_000.0 ** (-torch.arange(0, dim, 2, dtype=torch.float32, device=device) / dim)
        angles = torch.arange(n, dtype=torch.float32, device=device)[:, None] * freqs  # (n, dim/2)
        shape = [1, 1, 1, dim // 2]
        shape[i] = n
        parts.append(angles.view(shape).expand(*grid, dim // 2))
    angles = rearrange(torch.cat(parts, dim=-1), "t h w e -> (t h w) e")
    return angles.cos(), angles.sin()


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate neighbouring pairs of channels, in real arithmetic.  x (..., N, E), cos and sin (N,
    E/2)."""
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)  # 2 x (..., N, E/2)
    turned = torch.addcmul(even * cos, odd, sin, value=-1), torch.addcmul(even * sin, odd, cos)
    return torch.stack(turned, dim=-1).flatten(-2)


def modulated_norm(x: Tensor, shift: Tensor, scale: Tensor, eps: float = 1e-6) -> Tensor:
    """LayerNorm without weights, then x * (1 + scale) + shift.  x (B, N, D), shift and scale (B, 1
    or N, D).

    One vector for all tokens is what a LayerNorm's own weight and bias are: one pass over x instead
    of two."""
    if shift.shape[:2].numel() == 1:
        return F.layer_norm(x, x.shape[-1:], 1 + scale.flatten(), shift.flatten(), eps)
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], None, None, eps), 1 + scale)


def gated(x: Tensor, gate: Tensor, y: Tensor) -> Tensor:
    """The residual x + gate * y in one pass.  x and y (B, N, D), gate (B, 1 or N, D)."""
    return torch.addcmul(x, gate, y)


class Linear(nn.Linear):
    """nn.Linear, by the kernel that is fastest for it."""

    def forward(self, x: Tensor) -> Tensor:
        return kernels.linear(x, self.weight, self.bias)


class LinearGelu(nn.Linear):
    """Linear layer and tanh-GELU as one."""

    def forward(self, x: Tensor) -> Tensor:
        return kernels.linear_gelu(x, self.weight, self.bias)


class MLP(nn.Module):
    """Linear, tanh-GELU, linear, as in DiT."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1 = LinearGelu(width, hidden)
        self.fc2 = Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.fc1(x))


class Embedder(nn.Module):
    """Linear, activation, linear: brings a timestep, a pooled vector or text tokens to the model's
    width.

    (..., D_in) -> (..., D).  SiLU for vectors (DiT), tanh-GELU for text tokens (PixArt-alpha, Wan
    2.1)."""

    def __init__(self, in_width: int, width: int, activation: Callable[[Tensor], Tensor] = F.silu):
        super().__init__()
        self.fc1 = Linear(in_width, width)
        self.fc2 = Linear(width, width)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.activation(self.fc1(x)))


def gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


@torch.no_grad()
def init_benchmark_weights(module: nn.Module, seed: int) -> None:
    """Random weights of unit gain, gates and output layers included.

    adaLN-Zero's own initialisation makes every block the identity and the output zero: timing it is
    fair, but any divergence or caching figure would mean nothing.  Norm weights start at 1.
    Weights of two dtypes are the same numbers, rounded (models.draw)."""
    if any(p.is_meta for p in module.parameters()):
        return
    generators: dict[torch.device, torch.Generator] = {}
    for submodule in module.modules():
        for name, p in submodule.named_parameters(recurse=False):
            if p.device not in generators:
                generators[p.device] = torch.Generator(p.device).manual_seed(seed)
            g = generators[p.device]
            if p.ndim >= 2:
                fan_in = 1 if isinstance(submodule, nn.Embedding) else p.shape[1:].numel()
                draw.normal_(p, fan_in**-0.5, g)
            elif name == "weight":  # the scale of a norm
                p.fill_(1.0)
            else:
                draw.normal_(p, 0.02, g)
