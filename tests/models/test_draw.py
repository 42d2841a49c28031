"""Weights and inputs are the same numbers in every dtype, rounded; and drawing them takes no
full-size float32 copy."""

import math

import pytest
import torch

from bench.core.load import load_point
from models import draw
from models.pipeline import build_pipeline
from models.spec import SamplerConfig
from models.stages import StageRequest, example_inputs, stage_calls
from models.training import init_training_weights
from support.models.draw import assert_one_model, same_but_rounded
from support.models.zoo_reduced import reduced

CPU = torch.device("cpu")
HALVES = (torch.bfloat16, torch.float16)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("shape", [(), (3,), (40, 30), (2, 3, 5, 7, 4)], ids=str)
@pytest.mark.parametrize(
    "piece", [2**24, 64, 7]
)  # all at once; rows and planes at a time; parts of a row
def test_a_half_is_the_float_rounded(monkeypatch, shape, half, piece):
    monkeypatch.setattr(draw, "PIECE", piece)
    wide = draw.normal(*shape, generator=generator(), device=CPU, dtype=torch.float32)
    assert torch.equal(
        draw.normal(*shape, generator=generator(), device=CPU, dtype=half), wide.to(half)
    )
    for fill in (draw.normal_, draw.uniform_):
        wide, narrow = (
            fill(torch.zeros(shape, dtype=dtype), 0.3, generator())
            for dtype in (torch.float32, half)
        )
        assert torch.equal(narrow, wide.to(half))
        assert (wide != 0).all()  # no element is left out


def test_the_memory_format_changes_no_number(monkeypatch):
    monkeypatch.setattr(draw, "PIECE", 50)
    plain, last = (
        torch.empty(4, 3, 2, 5, 6),
        torch.empty(4, 3, 2, 5, 6).to(memory_format=torch.channels_last_3d),
    )
    assert torch.equal(draw.normal_(plain, 1.0, generator()), draw.normal_(last, 1.0, generator()))


def test_no_piece_is_larger_than_said(monkeypatch):
    monkeypatch.setattr(draw, "PIECE", 64)
    sizes = []
    draw._fill(torch.empty(7, 10, 9), lambda piece: sizes.append(piece.numel()) or piece.zero_())
    assert max(sizes) <= 64
    assert sum(sizes) == 7 * 10 * 9


def test_on_meta_a_tensor_of_any_size_is_one_piece():
    huge = (2**20, 2**20, 2**19)  # 2^35 pieces would take hours
    assert (
        draw.normal(*huge, generator=None, device=torch.device("meta"), dtype=torch.bfloat16).shape
        == huge
    )


def test_draws_have_the_mean_and_spread_they_should():
    n = 200_000
    x = draw.normal(n, generator=generator(), device=CPU, dtype=torch.float32)
    assert abs(x.mean().item()) < 4 / math.sqrt(n)
    assert x.std().item() == pytest.approx(1.0, abs=4 / math.sqrt(2 * n))
    u = draw.uniform(n, generator=generator(), device=CPU, dtype=torch.float32)
    assert u.std().item() == pytest.approx(1 / math.sqrt(3), rel=0.01)
    assert -1 <= u.min() < -0.999
    assert 0.999 < u.max() <= 1


@pytest.mark.parametrize("name", ["tiny", "tiny-ar", "wan2.2-ti2v-5b", "hunyuanvideo", "ltx-2"])
def test_two_dtypes_are_one_model_with_one_input(monkeypatch, name):
    monkeypatch.setattr(draw, "PIECE", 2**12)  # so that small weights come in pieces too
    point = load_point(name, "tiny-video", "eager-fp32") if name.startswith("tiny") else None
    model, workload = (point.model, point.workload) if point else reduced(name)

    def make(dtype: torch.dtype):
        pipeline = build_pipeline(
            model.denoiser, model.vae, model.text_encoders, device=CPU, dtype=dtype, seed=3
        )
        return pipeline, example_inputs(
            pipeline,
            batch=2,
            channels=model.denoiser.in_channels,
            device=CPU,
            dtype=dtype,
            latent_shape=model.latent_shape(workload),
            seed=4,
        )

    assert_one_model(make)


def test_the_pixels_that_are_encoded_are_the_same_too():
    point = load_point("tiny", "tiny-image", "eager-fp32", stages=("vae_encode",))
    model, seen, zeros = point.model, [], torch.zeros(1, 4, 1, 8, 8)
    for dtype in (torch.float32, torch.bfloat16):
        pipeline = build_pipeline(
            model.denoiser, model.vae, (), device=CPU, dtype=dtype, seed=0, stages=point.stages
        )
        pipeline.denoiser.to_empty(device=CPU)
        inputs = example_inputs(
            pipeline, batch=1, channels=4, latent_shape=(1, 8, 8), device=CPU, dtype=dtype, seed=1
        )
        pipeline.vae.encode = lambda video: seen.append(video) or (zeros, zeros)
        request = StageRequest(frames=1, height=32, width=32, guided=False, steps=1, seed=2)
        stage_calls(pipeline, inputs, request)["vae_encode"]()
    assert same_but_rounded(*seen)


def test_training_starts_from_the_same_weights():
    from models.dit.model import SpatioTemporalDiT
    from models.vae.model import VideoVAE

    model = load_point("tiny", "tiny-image", "eager-fp32").model
    for build in (lambda: SpatioTemporalDiT(model.denoiser), lambda: VideoVAE(model.vae)):
        wide, narrow = build(), build().bfloat16()
        for module in (wide, narrow):
            init_training_weights(module, 5)
        for p, q in zip(wide.parameters(), narrow.parameters(), strict=True):
            torch.testing.assert_close(
                q.float(), p, rtol=2**-7, atol=0
            )  # the pixels' weights are scaled after rounding


@pytest.mark.parametrize(
    "config",
    [
        {
            "sampler": "sde",
            "path": "linear",
            "diffusion": "sigma",
            "diffusion_norm": 1.0,
            "last_step": 0.04,
        },
        {"sampler": "ddpm", "path": "ddpm-linear"},
        {"sampler": "ddim", "path": "ddpm-linear", "eta": 1.0},
        {"sampler": "lcm", "path": "ddpm-linear"},
    ],
    ids=lambda c: c["sampler"],
)
def test_a_stochastic_sampler_kicks_both_dtypes_alike(config):
    """A model whose answer is the same whatever it is asked: what is left to part the two is the
    noise and its rounding."""
    from models.diffusion.samplers import sample

    unsaid = dict.fromkeys(("diffusion", "diffusion_norm", "last_step", "eta"))
    sampler = SamplerConfig(**{**unsaid, "prediction": "velocity", "steps": 4, **config})
    # 1,000 numbers are no multiple of 16: PyTorch 2.13 too then draws others in bfloat16, at the
    # end.
    x = draw.normal(1, 4, 10, 5, 5, generator=generator(), device=CPU, dtype=torch.float32)
    made = [
        sample(lambda x, t: torch.full_like(x, 0.1), x.to(dtype), sampler, generator()).float()
        for dtype in (torch.float32, torch.bfloat16)
    ]
    assert (made[1] - made[0]).abs().max() < 0.05 * made[0].abs().max()
