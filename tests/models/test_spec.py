"""Rules of shapes: what a model and a VAE can take, and what is said when they cannot."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.core.load import load
from bench.core.specs.model import Model
from bench.core.specs.workload import Workload
from models.spec import DiTConfig, VAEConfig
from support.models.specs import DIT, VAE


def test_sora_minute_has_180_latent_frames_and_184320_tokens():
    model, workload = load(Model, "sora-20b"), load(Workload, "sora-1min-512")
    assert model.latent_shape(workload) == (180, 64, 64)  # 1440 / 8, 512 / 8
    assert model.tokens(workload) == 184_320  # 180 * 32 * 32


@pytest.mark.parametrize(("frames", "latents"), [(1, 1), (8, 1), (9, 2), (1440, 180), (1441, 181)])
def test_grouped_frames_round_up(frames, latents):
    assert VAEConfig(**VAE).latent_frames(frames) == latents


@pytest.mark.parametrize(("frames", "latents"), [(1, 1), (9, 2), (17, 3), (81, 11)])
def test_first_frame_alone_takes_kf_plus_1(frames, latents):
    assert VAEConfig(**{**VAE, "first_frame_alone": True}).latent_frames(frames) == latents


def test_illegal_frames_name_both_neighbours():
    with pytest.raises(ValueError, match="20 frames.*nearest: 17 or 21"):
        VAEConfig(**{**VAE, "first_frame_alone": True, "temporal_factor": 4}).latent_frames(20)


@given(st.integers(1, 10_000))
def test_the_named_neighbours_are_legal(frames):
    vae = VAEConfig(**{**VAE, "first_frame_alone": True})
    try:
        vae.latent_frames(frames)
    except ValueError as error:
        low, high = (int(n) for n in str(error).rsplit("nearest: ", 1)[1].split(" or "))
        assert low < frames < high
        assert vae.latent_frames(low) + 1 == vae.latent_frames(high)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 65}, "width 65 is not a multiple of num_heads 2; nearest: 64 or 66"),
        ({"width": -64}, "width is -64"),
        ({"depth": 0}, "depth is 0"),
        ({"rope_axes": (2, 2, 2)}, "sum to head_dim 32"),
        ({"rope_axes": (10, 11, 11)}, "even numbers"),
        ({"attention": "factorised", "depth": 3}, "must be even"),
        ({"patch_size": (0, 2, 2)}, "patch_size"),
        ({"mlp_ratio": 0.3}, "mlp_ratio 0.3"),
    ],
)
def test_impossible_dit(change, message):
    with pytest.raises(ValueError, match=message):
        DiTConfig(**{**DIT, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temporal_factor": 3}, r"must be one of \[1, 2, 4, 8\]"),
        ({"temporal_factor": 16}, "temporal_factor 16"),
        ({"temporal_kernel": 1}, "needs temporal_kernel 3"),
        ({"channels": ()}, "at least one level"),
    ],
)
def test_impossible_vae(change, message):
    with pytest.raises(ValueError, match=message):
        VAEConfig(**{**VAE, **change})


@given(st.integers(1, 512).map(lambda n: 2 * n))
def test_default_rope_split_is_even_and_complete(head_dim):
    axes = DiTConfig(**{**DIT, "width": 2 * head_dim}).rope_split
    assert sum(axes) == head_dim
    assert all(a % 2 == 0 and a >= 0 for a in axes)


def test_rope_split_of_128_is_hunyuanvideos():
    assert DiTConfig(**{**DIT, "width": 256}).rope_split == (16, 56, 56)


def test_height_off_the_vaes_grid_names_neighbours():
    with pytest.raises(ValueError, match="height 500.*nearest: 496 or 504"):
        VAEConfig(**VAE).latent_shape(8, 500, 512)
