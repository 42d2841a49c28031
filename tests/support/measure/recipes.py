"""A tiny point under a recipe, its outputs, and a machine with a card or without."""

import importlib.util

import pytest
import torch

from bench.core.load import load_point
from bench.core.specs.point import Point
from bench.measure.points.build import build_calls

CPU = torch.device("cpu")


STAGES = ("trajectory", "vae_decode")


needs_torchao = pytest.mark.skipif(
    importlib.util.find_spec("torchao") is None, reason="torchao is not installed"
)


def point(recipe: dict | None = None, stages: tuple[str, ...] = STAGES) -> Point:
    """A guided clip of five frames in two steps."""
    return load_point(
        "tiny",
        "tiny-video",
        "eager-fp32",
        {
            "workload.frames": 5,
            "workload.height": 32,
            "workload.width": 32,
            "workload.steps": 2,
            "denoiser.depth": 2,
            "denoiser.width": 128,
            "denoiser.num_heads": 2,
            **{f"recipe.{name}": value for name, value in (recipe or {}).items()},
        },
        stages,
    )


def outputs(recipe: dict | None = None) -> dict[str, torch.Tensor]:
    """What the recipe makes, from the same seed and weights."""
    calls, _ = build_calls(point(recipe), CPU)
    with torch.inference_mode():
        latents = calls["trajectory"]()
        return {"latents": latents.float(), "video": calls["vae_decode"](latents).float()}
