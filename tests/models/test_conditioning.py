"""Tasks: what is given, where it is placed, what it costs, and what is said where it cannot be."""

import pytest
import torch

from bench.core.errors import UserError
from bench.core.load import load, load_point
from bench.core.specs.workload import Workload
from models.dit.conditioning import given_latents, noised
from models.pipeline import build_pipeline
from support.models.own import CPU

MASKED = {"denoiser.masked_condition": True, "workload.frames": 17}


@pytest.mark.parametrize(
    ("task", "placed"),
    [
        ("image-to-video", [1, 0, 0, 0, 0]),
        ("extend", [1, 1, 0, 0, 0]),
        ("extend-backward", [0, 0, 0, 0, 1]),
        ("loop", [1, 1, 0, 0, 1]),
    ],
)
@torch.no_grad()
def test_given_frames_are_placed_and_reach_the_video(task, placed):
    point = load_point("tiny", "tiny-clip", "eager-fp32", MASKED)
    model = point.model
    pipeline = build_pipeline(
        model.denoiser, model.vae, model.text_encoders, device=CPU, dtype=torch.float32, seed=0
    )
    frames = 1 if task == "image-to-video" else 5
    mean, _ = pipeline.vae.encode(torch.rand(1, 3, frames, 64, 64))
    condition = given_latents(mean, task, 5, model.vae)
    assert condition["mask"][0, 0, :, 0, 0].tolist() == placed
    first = (
        1 if task == "extend-backward" else 0
    )  # at the end, the latent of a first frame alone is left out
    assert torch.equal(
        condition["given"][:, :, [i for i, p in enumerate(placed) if p]][
            :, :, : mean.shape[2] - first
        ],
        mean[:, :, first:],
    )
    assert (condition["given"] * (1 - condition["mask"])).abs().max() == 0
    condition["text"] = torch.randn(1, 128)
    noise = torch.randn(1, 4, 5, 16, 16)
    video = pipeline.generate(noise, 2, condition, 17)
    assert video.shape == (1, 3, 17, 64, 64)
    other = {**condition, "given": condition["given"] + condition["mask"]}
    assert not torch.equal(pipeline.generate(noise, 2, other, 17), video)


def test_video_to_video_starts_between_the_clip_and_noise():
    x, noise = torch.ones(2), torch.full((2,), 3.0)
    assert noised(x, noise, 0.25).tolist() == [1.5, 1.5]
    assert torch.equal(noised(x, noise, 1.0), noise)
    with pytest.raises(ValueError, match="strength 0"):
        noised(x, noise, 0)


@pytest.mark.parametrize(
    ("task", "frames", "words"),
    [
        (
            "text-to-video",
            1,
            "places no frames; those that do: image-to-video, extend, loop, extend-backward",
        ),
        ("extend", 5, "5 latent frames are given to extend of 5"),
        ("loop", 3, "are given to loop of 5"),
        ("extend-backward", 1, "1 latent frames are given to extend-backward"),
    ],
)
def test_frames_that_cannot_be_placed(task, frames, words):
    vae = load_point("tiny", "tiny-clip", "eager-fp32").model.vae
    with pytest.raises(ValueError, match=words):
        given_latents(torch.zeros(1, 4, frames, 2, 2), task, 5, vae)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"task": "extend"}, "given_frames 0 with task extend: at least 1 is needed"),
        ({"given_frames": 3}, "given_frames 3 with task text-to-video: 0 is needed"),
        ({"task": "extend", "given_frames": 17}, "at most 16 of 17 frames"),
        ({"task": "loop", "given_frames": 9}, "at most 8 of 17 frames"),
        ({"task": "image2video"}, "is not one of"),
    ],
)
def test_impossible_tasks(change, words):
    with pytest.raises(UserError, match=words):
        load(Workload, "tiny-clip", change)


@pytest.mark.parametrize(
    ("model", "workload", "recipe", "change", "words"),
    [
        (
            "tiny",
            "tiny-clip",
            "eager-fp32",
            {"workload.task": "image-to-video"},
            "needs a denoiser with masked_condition",
        ),
        (
            "wan2.1-t2v-1.3b",
            "480p-81f",
            "eager-bf16",
            {"workload.task": "image-to-video"},
            "needs a denoiser with masked",
        ),
        (
            "wan2.1-t2v-1.3b",
            "480p-81f",
            "eager-bf16-cudnn-chunks",
            {},
            "only own VAEs decode in parts",
        ),
        (
            "tiny",
            "tiny-clip",
            "eager-fp32",
            MASKED | {"workload.task": "extend", "workload.given_frames": 7},
            "given_frames: 7 frames: .*nearest: 5 or 9",
        ),
        (
            "tiny",
            "tiny-clip",
            "eager-fp32-chunks",
            {"recipe.vae_chunk": None},
            "vae_tile without vae_chunk",
        ),
    ],
)
def test_parts_that_do_not_go_together(model, workload, recipe, change, words):
    with pytest.raises(UserError, match=words):
        load_point(model, workload, recipe, change)
