"""The smallest own and public models, one call of them, and what a profile holds."""

import torch

from bench.core.load import load_point
from bench.core.specs.point import Point
from bench.measure.attention.ran import (
    attention_ran,
)
from bench.measure.points.build import build_calls
from bench.results.records import AttentionRan

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


SMALL = {
    "workload.frames": 5,
    "workload.height": 32,
    "workload.width": 32,
    "denoiser.width": 128,
    "denoiser.num_heads": 2,
}


def own(recipe: str, stages: tuple[str, ...] = ("denoise_step",), **sets: object) -> Point:
    return load_point("tiny", "tiny-video", recipe, {**SMALL, "denoiser.depth": 6, **sets}, stages)


def public(recipe: str) -> Point:
    return load_point(
        "wan-tiny",
        "versus-cpu",
        recipe,
        {"workload.frames": 5, "workload.height": 64, "workload.width": 64},
        ("denoise_step",),
    )


def ran(point: Point) -> AttentionRan | None:
    calls, _ = build_calls(point, CPU)
    with torch.inference_mode():
        return attention_ran(point, calls, CPU)
