"""A clip decoded in parts equals the clip decoded whole; memory is set by the part."""

import pytest
import torch

from bench.core.load import load
from bench.core.specs.model import Model
from bench.count.trace import trace
from models.vae.model import VideoVAE
from models.vae.parts import decode_in_parts, decode_parts, encode_in_parts
from models.vae.tiling import Tiling, sight
from support.models.own import vae

SHAPES = [
    {"temporal_factor": f, "first_frame_alone": alone}
    for f in (1, 2, 4, 8)
    for alone in (True, False)
]
IDS = [
    f"{s['temporal_factor']}x {'alone' if s['first_frame_alone'] else 'grouped'}" for s in SHAPES
]


def error(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize(
    "dtype_and_tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-12)], ids=["fp32", "fp64"]
)
@pytest.mark.parametrize("shape", SHAPES, ids=IDS)
@torch.no_grad()
def test_causal_chunks_equal_the_whole(shape, dtype_and_tolerance):
    dtype, tolerance = dtype_and_tolerance
    model = vae(causal=True, **shape).to(dtype)
    latents = torch.randn(1, 4, 5, 3, 2, dtype=dtype)
    whole = model.decode(latents)
    for chunk in (1, 2, 3, 5, 9):
        assert error(decode_in_parts(model, latents, chunk=chunk), whole) < tolerance
    video = torch.randn(1, 3, 2 * model.config.temporal_factor + 1, 16, 8, dtype=dtype)
    for chunk in (1, 2):
        for part, all_ in zip(
            encode_in_parts(model, video, chunk=chunk), model.encode(video), strict=True
        ):
            assert error(part, all_) < tolerance


@pytest.mark.parametrize("shape", SHAPES, ids=IDS)
@torch.no_grad()
def test_symmetric_chunks_with_their_halo_equal_the_whole(shape):
    model = vae(causal=False, channels=(4, 4, 4, 4), **shape).double()
    latents = torch.randn(1, 4, 14, 1, 1, dtype=torch.double)
    assert error(decode_in_parts(model, latents, chunk=3), model.decode(latents)) < 1e-12


@torch.no_grad()
def test_parts_come_one_by_one_and_frames_cuts_the_last_group():
    model = vae(temporal_factor=4)
    latents = torch.randn(2, 4, 3, 2, 2)
    assert [p.shape for p in decode_parts(model, latents, chunk=2)] == [
        (2, 3, 8, 16, 16),
        (2, 3, 4, 16, 16),
    ]
    assert decode_in_parts(model, latents, 10, chunk=2).shape == (2, 3, 10, 16, 16)


@torch.no_grad()
def test_sight_is_how_far_a_change_in_the_middle_reaches():
    model = vae(causal=False, channels=(4, 4, 4), temporal_factor=2).double()
    time, space = sight(model.config)
    latents = torch.randn(1, 4, 33, 41, 1, dtype=torch.double)
    changed = latents.clone()
    changed[0, :, 16, 20, 0] += 1
    moved = (model.decode(latents) - model.decode(changed)).abs().amax(
        dim=(0, 1, 4)
    ) > 0  # (F, s H)
    rows = moved.any(dim=0).nonzero().flatten()
    frames = moved.any(dim=1).nonzero().flatten()
    reach_space = max(20 * 4 - rows[0], rows[-1] - (20 * 4 + 3)) / 4
    reach_time = max(16 * 2 - frames[0], frames[-1] - (16 * 2 + 1)) / 2
    assert reach_space <= space < reach_space + 1
    assert reach_time <= time < reach_time + 1


@torch.no_grad()
def test_tiles_with_enough_overlap_equal_the_whole_and_less_overlap_errs_more():
    model = vae(channels=(4, 4), res_blocks=1, temporal_factor=2).double()
    latents = torch.randn(1, 4, 2, 75, 60, dtype=torch.double)
    whole = model.decode(latents)
    enough = 4 * int(sight(model.config)[1] + 1)
    errors = {
        overlap: error(
            decode_in_parts(
                model, latents, chunk=1, tiling=Tiling(size=enough + 4, overlap=overlap)
            ),
            whole,
        )
        for overlap in (0, 4, 8, enough)
    }
    assert errors[enough] < 1e-12
    assert errors[0] > errors[4] > errors[8] > errors[enough]
    assert errors[8] < 0.04  # random weights, unit gain: what 8 shared cells cost (0.032 seen)


@torch.no_grad()
def test_one_tile_larger_than_the_clip_is_no_tiling():
    model = vae()
    latents = torch.randn(1, 4, 2, 3, 5)
    torch.testing.assert_close(
        decode_in_parts(model, latents, chunk=2, tiling=Tiling(size=8, overlap=2)),
        model.decode(latents),
    )


@pytest.mark.parametrize(("size", "overlap"), [(8, 8), (8, 9), (8, -1), (0, 0)])
def test_impossible_tiles(size, overlap):
    with pytest.raises(ValueError, match="overlap|size is 0"):
        Tiling(size=size, overlap=overlap)


def test_impossible_parts():
    with pytest.raises(ValueError, match="chunk 0"):
        next(decode_parts(vae(), torch.randn(1, 4, 1, 1, 1), chunk=0))
    with pytest.raises(ValueError, match="cannot be encoded in parts"):
        encode_in_parts(vae(causal=False), torch.randn(1, 3, 8, 8, 8), chunk=1)


@torch.no_grad()
def test_memory_is_set_by_the_part_and_not_by_the_clip():
    """The sora presets' VAE at 480x480; peaks followed on meta, so nothing is held.  Each tile
    keeps its own last frames, so that tiles which overlap much save nothing (at 512x512 with an
    overlap of 8)."""
    model = load(Model, "sora-20b").vae
    with torch.device("meta"):
        decoder = VideoVAE(model)
        clips = {t: torch.empty(1, model.latent_channels, t, 60, 60) for t in (3, 6)}

    def stream(latents, tiling=None):
        for _ in decode_parts(decoder, latents, chunk=1, tiling=tiling):
            pass

    whole = {t: trace(lambda x=x: decoder.decode(x)).peak_bytes for t, x in clips.items()}
    chunks = {t: trace(lambda x=x: stream(x)).peak_bytes for t, x in clips.items()}
    tiles = {
        t: trace(lambda x=x: stream(x, Tiling(size=32, overlap=4))).peak_bytes
        for t, x in clips.items()
    }
    assert whole[6] > 1.9 * whole[3]  # in one piece: grows with the clip
    assert chunks[6] == chunks[3] < whole[6] / 1.4  # in chunks: does not
    assert tiles[6] == tiles[3] < chunks[3]  # tiles: less again


def test_followed_peaks_are_those_of_the_tensors():
    """a (4 MB) -> b = a + a; c = b * b while a lives; d after b is gone: at most three at once."""

    def call():
        a = torch.empty(2**20, device="meta")
        b = a + a
        c = b * b
        del b
        return c + a

    assert trace(call).peak_bytes == 3 * 4 * 2**20


def test_views_and_attention_scores_hold_nothing_more():
    def call():
        q = torch.empty(1, 2, 512, 16, device="meta")
        return torch.nn.functional.scaled_dot_product_attention(q, q.view_as(q), q.transpose(0, 0))

    assert (
        trace(call).peak_bytes == 2 * 4 * 2 * 512 * 16
    )  # q and the result: a fused kernel writes no scores
