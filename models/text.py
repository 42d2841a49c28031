"""Text encoder stand-in: the products of T5's encoder at a given shape, on random embeddings.  B batch, L tokens, D width."""

import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import SelfAttention
from models.spec import TextEncoderConfig


class TextEncoder(nn.Module):
    """Pre-norm encoder blocks with gated GELU (T5 1.1, arXiv 1910.10683 and 2002.05202), mean-pooled at the end.

    Vocabulary and relative-position bias are left out: they multiply nothing, and the weights are random."""

    def __init__(self, config: TextEncoderConfig):
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(TextBlock(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, L, D) token embeddings -> (B, D) pooled."""
        for block in self.blocks:
            x = block(x)
        return self.norm(x).mean(dim=1)


class TextBlock(nn.Module):
    """(B, L, D) -> (B, L, D)."""

    def __init__(self, config: TextEncoderConfig):
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, bias=False)
        self.attn = SelfAttention(config.width, config.num_heads, config.head_dim, bias=False)
        self.norm2 = nn.LayerNorm(config.width, bias=False)
        self.gate_up = nn.Linear(config.width, 2 * config.ffn_width, bias=False)
        self.down = nn.Linear(config.ffn_width, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        gate, up = self.gate_up(self.norm2(x)).chunk(2, dim=-1)
        return x + self.down(F.gelu(gate, approximate="tanh") * up)
