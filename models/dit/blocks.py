"""Transformer blocks of the DiT: plain (with cross-attention to text where asked), dual stream,
single stream.

Each takes and gives video tokens x (B, N, D) and text tokens (B, L, D, or None), so that a model is
a list of any of them.  `signal` is what modulates: SiLU of the condition (R, D) for adaLN-Zero per
block, or the shared modulation (R, 6 D) for one shared adaLN; R is the batch, or the number of
packed requests.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from models.dit.attention import CrossAttention, Layout, SelfAttention, heads_first, qk_norm
from models.dit.spec import DiTConfig
from models.layers import MLP, Linear, gated, gelu_tanh, modulated_norm

Rope = tuple[Tensor, Tensor] | None


class Modulation(nn.Module):
    """Shifts, scales and gates from the condition.

    per_block: a projection of its own (adaLN-Zero, arXiv 2212.09748).  shared: a table added to one
    modulation that all blocks share (adaLN-single, PixArt-alpha, arXiv 2310.00426; Wan 2.1)."""

    def __init__(self, config: DiTConfig, parts: int):
        super().__init__()
        self.parts = parts
        self.shared = config.modulation == "shared"
        if self.shared:
            self.table = nn.Parameter(torch.empty(parts, config.width))
        else:
            self.linear = Linear(config.width, parts * config.width)

    def forward(self, signal: Tensor) -> tuple[Tensor, ...]:
        """(R, D) or (R, 6 D) -> parts x (R, D)."""
        if not self.shared:
            return self.linear(signal).chunk(self.parts, dim=-1)
        return (
            rearrange(signal, "r (p d) -> r p d", d=self.table.shape[1])[:, : self.parts]
            + self.table
        ).unbind(1)


class DiTBlock(nn.Module):
    """Self-attention, attention to text tokens where there are any, MLP; the first and last
    modulated and gated."""

    def __init__(self, config: DiTConfig, index: int):
        super().__init__()
        self.axis = {
            "full": "all",
            "factorised": ("space", "time")[index % 2],
            "windowed": "window",
        }[config.attention]
        self.attn = SelfAttention(config.width, config.num_heads, config.qk_norm)
        self.norm_cross = self.cross = None
        if config.text == "cross":
            self.norm_cross = nn.LayerNorm(config.width, eps=1e-6)
            self.cross = CrossAttention(config.width, config.num_heads, config.qk_norm)
        self.mlp = MLP(config.width, config.mlp_width)
        self.modulation = Modulation(config, 6)

    def forward(
        self, x: Tensor, text: Tensor | None, signal: Tensor, layout: Layout, rope: Rope
    ) -> tuple[Tensor, Tensor | None]:
        shift1, scale1, gate1, shift2, scale2, gate2 = map(layout.spread, self.modulation(signal))
        x = gated(x, gate1, self.attn(modulated_norm(x, shift1, scale1), layout, rope, self.axis))
        if self.cross is not None:
            x = x + self.cross(self.norm_cross(x), text, layout)
        return gated(x, gate2, self.mlp(modulated_norm(x, shift2, scale2))), text


class DualStreamBlock(nn.Module):
    """Video and text with weights of their own, one attention over both (MMDiT, arXiv 2403.03206).

    last: no block follows, so that text is attended to and goes no further, as in Stable Diffusion
    3."""

    def __init__(self, config: DiTConfig, last: bool):
        super().__init__()
        self.video, self.text = _Stream(config), _Stream(config, attended_alone=last)

    def forward(
        self, x: Tensor, text: Tensor, signal: Tensor, layout: Layout, rope: Rope
    ) -> tuple[Tensor, Tensor]:
        def spread_text(v: Tensor) -> Tensor:
            return layout.spread(v, layout.text_lengths)

        video_mods = [layout.spread(v) for v in self.video.modulation(signal)]
        text_mods = [spread_text(v) for v in self.text.modulation(signal)]
        qkv = zip(
            self.video.project(x, video_mods, rope),
            self.text.project(text, text_mods, None),
            strict=True,
        )
        out = layout.joint(*(torch.cat(pair, dim=2) for pair in qkv))
        out = rearrange(out, "b a n e -> b n (a e)")
        video_out, text_out = out.split([x.shape[1], text.shape[1]], dim=1)
        return (
            self.video.finish(x, video_out, video_mods),
            text if self.text.attended_alone else self.text.finish(text, text_out, text_mods),
        )


class _Stream(nn.Module):
    """One stream's half of a dual block: everything but the attention itself."""

    def __init__(self, config: DiTConfig, attended_alone: bool = False):
        super().__init__()
        self.attended_alone = attended_alone
        self.attn = SelfAttention(
            config.width, config.num_heads, config.qk_norm, out=not attended_alone
        )
        self.modulation = Modulation(config, 2 if attended_alone else 6)
        if not attended_alone:
            self.mlp = MLP(config.width, config.mlp_width)

    def project(self, x: Tensor, mods: list[Tensor], rope: Rope) -> tuple[Tensor, Tensor, Tensor]:
        return self.attn.project(modulated_norm(x, mods[0], mods[1]), rope)

    def finish(self, x: Tensor, attended: Tensor, mods: list[Tensor]) -> Tensor:
        _, _, gate1, shift2, scale2, gate2 = mods
        x = gated(
            x, gate1, self.attn.proj(attended.contiguous())
        )  # a strided input would turn the projection into bmm
        return gated(x, gate2, self.mlp(modulated_norm(x, shift2, scale2)))


class SingleStreamBlock(nn.Module):
    """Video and text as one sequence; attention and MLP side by side between two products (ViT-22B,
    arXiv 2302.05442; FLUX.1, HunyuanVideo, arXiv 2412.03603)."""

    def __init__(self, config: DiTConfig):
        super().__init__()
        self.num_heads, self.width = config.num_heads, config.width
        self.into = Linear(config.width, 3 * config.width + config.mlp_width)
        self.qk_norm = qk_norm(config.qk_norm, config.num_heads, config.head_dim)
        self.out = Linear(config.width + config.mlp_width, config.width)
        self.modulation = Modulation(config, 3)

    def forward(
        self, x: Tensor, text: Tensor, signal: Tensor, layout: Layout, rope: Rope
    ) -> tuple[Tensor, Tensor]:
        mods = self.modulation(signal)
        shift, scale, gate = (layout.spread(v) for v in mods)
        if layout.packed:  # a request's video and text lie apart
            of_text = (layout.spread(v, layout.text_lengths) for v in mods)
            shift, scale, gate = (
                torch.cat(pair, dim=1) for pair in zip((shift, scale, gate), of_text, strict=True)
            )
        tokens, videos = torch.cat([x, text], dim=1), x.shape[1]
        hidden = self.into(modulated_norm(tokens, shift, scale))
        qkv, mlp = hidden.split([3 * self.width, hidden.shape[-1] - 3 * self.width], dim=-1)
        q, k, v = rearrange(qkv, "b n (three a e) -> three b n a e", three=3, a=self.num_heads)
        video = heads_first(self.qk_norm, q[:, :videos], k[:, :videos], v[:, :videos], rope)
        texts = heads_first(self.qk_norm, q[:, videos:], k[:, videos:], v[:, videos:], None)
        out = layout.joint(*(torch.cat(pair, dim=2) for pair in zip(video, texts, strict=True)))
        out = torch.cat([rearrange(out, "b a n e -> b n (a e)"), gelu_tanh(mlp)], dim=-1)
        tokens = gated(tokens, gate, self.out(out))
        return tokens[:, :videos], tokens[:, videos:]


class FinalLayer(nn.Module):
    """Modulated norm and projection to patches.  (B, N, D) -> (B, N, patch * C_out)."""

    def __init__(self, config: DiTConfig, out_width: int):
        super().__init__()
        self.shared = config.modulation == "shared"
        if self.shared:
            self.table = nn.Parameter(torch.empty(2, config.width))
        else:
            self.modulation = Linear(config.width, 2 * config.width)
        self.linear = Linear(config.width, out_width)

    def forward(self, x: Tensor, condition: Tensor, layout: Layout) -> Tensor:
        """condition (R, D), before SiLU."""
        if self.shared:
            shift, scale = (condition[:, None] + self.table).unbind(1)
        else:
            shift, scale = self.modulation(F.silu(condition)).chunk(2, dim=-1)
        return self.linear(modulated_norm(x, layout.spread(shift), layout.spread(scale)))


def make_blocks(config: DiTConfig, count: int) -> nn.ModuleList:
    """The first `count` blocks of a model: plain ones, or with joint text dual stream, then single
    stream."""
    if config.text != "joint":
        return nn.ModuleList(DiTBlock(config, i) for i in range(count))
    dual = config.depth - config.single_blocks
    return nn.ModuleList(
        DualStreamBlock(config, last=i == count - 1) if i < dual else SingleStreamBlock(config)
        for i in range(count)
    )
