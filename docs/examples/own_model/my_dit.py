"""A small video DiT, as its authors wrote it: (B, C, T, H, W) latents, a time, text tokens."""

import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.modulate = nn.Linear(width, 6 * width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x, c):
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.modulate(c)[:, None].chunk(6, -1)
        h = F.layer_norm(x, x.shape[-1:]) * (1 + scale_a) + shift_a
        q, k, v = self.qkv(h).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + gate_a * self.out(attended)
        h = F.layer_norm(x, x.shape[-1:]) * (1 + scale_m) + shift_m
        return x + gate_m * self.down(F.gelu(self.up(h)))


class MyDiT(nn.Module):
    def __init__(self, channels=8, width=128, depth=4, heads=4, text_width=64):
        super().__init__()
        self.patch = nn.Conv3d(channels, width, (1, 2, 2), (1, 2, 2))
        self.time = nn.Linear(1, width)
        self.text = nn.Linear(text_width, width)
        self.layers = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.head = nn.ConvTranspose3d(width, channels, (1, 2, 2), (1, 2, 2))

    def forward(self, latents, timestep, context):
        grid = self.patch(latents)
        x = grid.flatten(2).transpose(1, 2)
        c = self.time(timestep[:, None].to(x.dtype)) + self.text(context).mean(1)
        for block in self.layers:
            x = block(x, c)
        return self.head(x.transpose(1, 2).unflatten(2, grid.shape[2:]))
