"""Text encoder stand-in: the products of a published encoder's shape, on random embeddings.

Shapes: B batch, L tokens, D width, A heads, E head_dim.
"""

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from models import kernels
from models.layers import Linear
from models.text.spec import TextEncoderConfig


class TextEncoder(nn.Module):
    """Pre-norm encoder blocks (T5 1.1, arXiv 1910.10683 and 2002.05202; with shared keys as Llama,
    2307.09288).

    Vocabulary and relative-position bias are left out: they multiply nothing, and the weights are
    random."""

    def __init__(self, config: TextEncoderConfig):
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(TextBlock(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, L, D) token embeddings -> (B, L, D)."""
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class TextBlock(nn.Module):
    """(B, L, D) -> (B, L, D)."""

    def __init__(self, config: TextEncoderConfig):
        super().__init__()
        self.heads, self.kv_heads, inner = (
            config.num_heads,
            config.kv_heads,
            config.num_heads * config.head_dim,
        )
        self.gated = config.gated
        self.norm1 = nn.LayerNorm(config.width, bias=False)
        self.qkv = Linear(config.width, inner + 2 * config.kv_heads * config.head_dim, bias=False)
        self.proj = Linear(inner, config.width, bias=False)
        self.norm2 = nn.LayerNorm(config.width, bias=False)
        self.up = Linear(config.width, (2 if config.gated else 1) * config.ffn_width, bias=False)
        self.down = Linear(config.ffn_width, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        heads = rearrange(
            self.qkv(self.norm1(x)), "b l (a e) -> b a l e", a=self.heads + 2 * self.kv_heads
        )
        q, k, v = heads.split([self.heads, self.kv_heads, self.kv_heads], dim=1)
        shared = self.heads // self.kv_heads
        k, v = (y.repeat_interleave(shared, dim=1) if shared > 1 else y for y in (k, v))
        out = kernels.attention(q, k, v)
        x = x + self.proj(rearrange(out, "b a l e -> b l (a e)"))
        hidden = self.up(self.norm2(x))
        if self.gated:
            gate, up = hidden.chunk(2, dim=-1)
            return x + self.down(F.gelu(gate, approximate="tanh") * up)
        return x + self.down(F.gelu(hidden))
