"""Spatio-temporal DiT.  Shapes: B batch, C channels, T H W latent frames/rows/cols, N tokens, D width.

Reads top-down: model, block, final layer.  The config is `models.spec.DiTConfig`; an image is T = 1.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from models.layers import (
    MLP,
    Embedder,
    SelfAttention,
    modulate,
    rope_angles,
    sincos_positions,
    sinusoidal_embedding,
)
from models.spec import DiTConfig

TIME_FREQUENCIES = 256   # width of the sinusoidal timestep embedding, as in DiT
TIME_SCALE = 1000.0      # t in [0, 1] is embedded as DiT's 0..1000


class SpatioTemporalDiT(nn.Module):
    """DiT with adaLN-Zero (arXiv 2212.09748) over video patches, conditioned on time, class and pooled text."""

    def __init__(self, config: DiTConfig):
        super().__init__()
        self.config = config
        patch = config.patch_size[0] * config.patch_size[1] * config.patch_size[2]
        self.patch_embed = nn.Linear(config.in_channels * patch, config.width)
        self.time_embed = Embedder(TIME_FREQUENCIES, config.width)
        self.label_embed = nn.Embedding(config.num_classes + 1, config.width) if config.num_classes else None
        self.text_embed = Embedder(config.text_width, config.width) if config.text_width else None
        self.blocks = nn.ModuleList(DiTBlock(config, index) for index in range(config.depth))
        self.final_layer = FinalLayer(config.width, config.out_channels * patch)
        self._positions: tuple = ((), None)   # (key, value): one shape is kept, as a denoising loop uses one

    def forward(self, x: Tensor, t: Tensor, *, labels: Tensor | None = None, text: Tensor | None = None) -> Tensor:
        """Predict noise or velocity.

        x (B, C, T, H, W) latents, t (B,) in [0, 1], labels (B,) class indices (num_classes = unconditional),
        text (B, text_width) pooled -> (B, C_out, T, H, W).

        Raises ValueError where the latents do not divide into patches, or a condition is missing or unexpected."""
        for name, given, wanted in (("labels", labels, self.label_embed), ("text", text, self.text_embed)):
            if (given is None) != (wanted is None):
                raise ValueError(f"{name} {'missing' if given is None else 'not taken'}: the config says "
                                 f"num_classes={self.config.num_classes}, text_width={self.config.text_width}")
        grid = self.config.grid(tuple(x.shape[2:]))
        positions = self.positions(grid, x)

        tokens = self.patch_embed(patchify(x, self.config.patch_size))        # (B, N, D)
        c = self.time_embed(sinusoidal_embedding(t * TIME_SCALE, TIME_FREQUENCIES).to(x.dtype))  # (B, D)
        if self.label_embed is not None:
            c = c + self.label_embed(labels)
        if self.text_embed is not None:
            c = c + self.text_embed(text)
        rope = None
        if self.config.positions == "sincos":
            tokens = tokens + positions
        else:
            rope = positions
        c = F.silu(c)                                                         # shared by all modulations
        for block in self.blocks:
            tokens = block(tokens, c, grid, rope)                             # (B, N, D)
        return unpatchify(self.final_layer(tokens, c), grid, self.config.patch_size)

    def at(self, t: float) -> None:
        """One set of weights serves every time; public models may hold several (models.zoo)."""

    def prepare(self, x: Tensor) -> None:
        """Compute what depends on the shape of x alone, as a denoising loop does once."""
        self.positions(self.config.grid(tuple(x.shape[2:])), x)

    def example_condition(self, batch: int, randn: Callable[..., Tensor], *, unconditional: bool) -> dict[str, Tensor]:
        """What forward takes beside x and t: random labels (the extra class when unconditional) and pooled text."""
        condition = {}
        if self.label_embed is not None:
            classes, device = self.config.num_classes, randn(1).device
            condition["labels"] = torch.full((batch,), classes if unconditional else classes // 2, device=device)
        if self.text_embed is not None:
            condition["text"] = randn(batch, self.config.text_width)
        return condition

    def positions(self, grid: tuple[int, int, int], x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Positions for a grid, kept for the next call of the same shape."""
        key = (grid, x.device, x.dtype)
        if self._positions[0] != key:
            if self.config.positions == "sincos":
                value = sincos_positions(grid, self.config.width, x.device).to(x.dtype)
            else:
                cos, sin = rope_angles(grid, self.config.rope_split, x.device)
                value = (cos.to(x.dtype), sin.to(x.dtype))
            self._positions = (key, value)
        return self._positions[1]


class DiTBlock(nn.Module):
    """Attention and MLP, each modulated by shift, scale and gate from the condition (adaLN-Zero)."""

    def __init__(self, config: DiTConfig, index: int):
        super().__init__()
        self.axis = "all" if config.attention == "full" else ("space", "time")[index % 2]
        self.norm1 = nn.LayerNorm(config.width, elementwise_affine=False, eps=1e-6)
        self.attn = SelfAttention(config.width, config.num_heads, config.head_dim, bias=True)
        self.norm2 = nn.LayerNorm(config.width, elementwise_affine=False, eps=1e-6)
        self.mlp = MLP(config.width, config.mlp_width)
        self.modulation = nn.Linear(config.width, 6 * config.width)

    def forward(self, x: Tensor, c: Tensor, grid: tuple[int, int, int], rope: tuple[Tensor, Tensor] | None) -> Tensor:
        """x (B, N, D), c (B, D) after SiLU -> (B, N, D)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(c).chunk(6, dim=-1)     # 6 x (B, D)
        x = x + gate1[:, None] * self.attend(modulate(self.norm1(x), shift1, scale1), grid, rope)
        return x + gate2[:, None] * self.mlp(modulate(self.norm2(x), shift2, scale2))

    def attend(self, x: Tensor, grid: tuple[int, int, int], rope: tuple[Tensor, Tensor] | None) -> Tensor:
        """Attention over all tokens, within each frame, or along time at each place.  (B, N, D) -> (B, N, D)."""
        if self.axis == "all":
            return self.attn(x, rope)
        t, h, w = grid
        fold, unfold, part = {
            "space": ("b (t s) d -> (b t) s d", "(b t) s d -> b (t s) d", slice(0, h * w)),
            "time": ("b (t s) d -> (b s) t d", "(b s) t d -> b (t s) d", slice(0, None, h * w)),
        }[self.axis]
        # Attention depends on differences of positions alone, so one frame's (or one column's) angles serve all.
        angles = None if rope is None else (rope[0][part], rope[1][part])
        folded = rearrange(x, fold, t=t).contiguous()      # a strided input would turn the projection into bmm
        return rearrange(self.attn(folded, angles), unfold, b=x.shape[0], t=t)


class FinalLayer(nn.Module):
    """Modulated norm and projection to patches.  (B, N, D) -> (B, N, patch * C_out)."""

    def __init__(self, width: int, out_width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.modulation = nn.Linear(width, 2 * width)
        self.linear = nn.Linear(width, out_width)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.modulation(c).chunk(2, dim=-1)
        return self.linear(modulate(self.norm(x), shift, scale))


def patchify(x: Tensor, patch: tuple[int, int, int]) -> Tensor:
    """(B, C, T, H, W) -> (B, N, C * patch).  Channels first within a patch, as DiT's convolution weight has them."""
    pt, ph, pw = patch
    return rearrange(x, "b c (t pt) (h ph) (w pw) -> b (t h w) (c pt ph pw)", pt=pt, ph=ph, pw=pw)


def unpatchify(x: Tensor, grid: tuple[int, int, int], patch: tuple[int, int, int]) -> Tensor:
    """(B, N, patch * C) -> (B, C, T, H, W).  Channels last within a patch, as in DiT's final layer."""
    (t, h, w), (pt, ph, pw) = grid, patch
    return rearrange(
        x, "b (t h w) (pt ph pw c) -> b c (t pt) (h ph) (w pw)", t=t, h=h, w=w, pt=pt, ph=ph, pw=pw
    )
