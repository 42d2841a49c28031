"""The smallest own models, built."""

import torch

from models.dit.model import SpatioTemporalDiT
from models.layers import init_benchmark_weights
from models.spec import DiTConfig, VAEConfig
from models.vae.model import VideoVAE
from support.models.specs import DIT, VAE

KINDS = {
    "plain": {},
    "sincos": {"positions": "sincos"},
    "classes": {"num_classes": 10},
    "pooled": {"text": "pooled", "text_width": 12},
    "cross": {"text": "cross", "text_width": 12, "text_tokens": 5},
    "cross shared": {
        "text": "cross",
        "text_width": 12,
        "text_tokens": 5,
        "modulation": "shared",
        "qk_norm": "across_heads",
    },
    "dual": {"text": "joint", "text_width": 12, "text_tokens": 5, "qk_norm": "per_head"},
    "dual, single": {"text": "joint", "text_width": 12, "text_tokens": 5, "single_blocks": 1},
    "single shared": {
        "text": "joint",
        "text_width": 12,
        "text_tokens": 5,
        "single_blocks": 2,
        "modulation": "shared",
    },
    "factorised": {"attention": "factorised"},
    "windowed": {"attention": "windowed", "window": (2, 2, 2), "window_tiles": (1, 3, 1)},
    "masked": {"masked_condition": True},
    "control": {"control_blocks": 1},
    "control joint": {
        "control_blocks": 2,
        "text": "joint",
        "text_width": 12,
        "text_tokens": 5,
        "single_blocks": 1,
    },
}


def inputs(model, shape, seed=0, batch=1):
    g = torch.Generator().manual_seed(seed)

    def randn(*s):
        return torch.randn(*s, generator=g)

    return (
        randn(batch, 4, *shape),
        torch.rand(batch, generator=g),
        model.example_condition(shape, batch, randn, unconditional=False),
    )


CPU = torch.device("cpu")


def dit(**change) -> SpatioTemporalDiT:
    model = SpatioTemporalDiT(DiTConfig(**{**DIT, **change})).eval()
    init_benchmark_weights(model, 0)
    return model


def vae(**change) -> VideoVAE:
    model = VideoVAE(VAEConfig(**{**VAE, **change})).eval()
    init_benchmark_weights(model, 0)
    return model
