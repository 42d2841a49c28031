"""The models: shapes, one set of weights for any shape, causality, and that random weights do
something."""

import pytest
import torch

from bench.core.load import load_point
from models.dit.model import patchify, unpatchify
from models.layers import apply_rope, rope_angles, sincos_positions
from models.pipeline import build_pipeline
from models.stages import StageRequest, example_inputs, stage_calls
from models.vae.model import reparameterise
from support.models.own import CPU, dit, vae


@pytest.mark.parametrize("attention", ["full", "factorised"])
@pytest.mark.parametrize("positions", ["rope", "sincos"])
@torch.no_grad()
def test_one_set_of_weights_for_any_duration_and_aspect(attention, positions):
    model = dit(attention=attention, positions=positions)
    for shape in ((1, 8, 8), (3, 4, 16), (5, 16, 4)):
        x = torch.randn(2, 4, *shape)
        out = model(x, torch.rand(2))
        assert out.shape == x.shape
        assert out.isfinite().all()
        assert out.std() > 0.05  # gates and output layers are not zero


@torch.no_grad()
def test_every_block_changes_the_output():
    """adaLN-Zero's own initialisation would make each block the identity, and any timing of quality
    a sham."""
    model, x, t = dit(), torch.randn(1, 4, 2, 4, 4), torch.rand(1)
    whole = model(x, t)
    for i in range(2):
        blocks = list(model.blocks)
        model.blocks = torch.nn.ModuleList(blocks[:i] + blocks[i + 1 :])
        assert (model(x, t) - whole).abs().mean() > 1e-3
        model.blocks = torch.nn.ModuleList(blocks)


@torch.no_grad()
def test_conditions_reach_the_output():
    model, x, t = (
        dit(num_classes=10, text="pooled", text_width=12),
        torch.randn(1, 4, 1, 4, 4),
        torch.rand(1),
    )
    labels, text = torch.tensor([3]), torch.randn(1, 12)
    base = model(x, t, labels=labels, text=text)
    for other in (
        model(x, t + 0.1, labels=labels, text=text),
        model(x, t, labels=torch.tensor([10]), text=text),
        model(x, t, labels=labels, text=text + 1),
    ):
        assert (other - base).abs().max() > 1e-3


@pytest.mark.parametrize("given", [{}, {"labels": torch.tensor([1]), "text": torch.zeros(1, 12)}])
def test_missing_or_unexpected_conditions_are_named(given):
    with pytest.raises(
        ValueError, match="(labels missing|text not taken): this config takes labels"
    ):
        dit(num_classes=10)(torch.randn(1, 4, 1, 4, 4), torch.rand(1), **given)


def test_latents_that_do_not_divide_into_patches_are_named():
    with pytest.raises(
        ValueError, match="5 latent rows do not divide into patches of 2; nearest: 4 or 6"
    ):
        dit()(torch.randn(1, 4, 1, 5, 4), torch.rand(1))


@torch.no_grad()
def test_factorised_attention_mixes_space_then_time():
    """A change in one place of one frame reaches, in the first block, its frame alone; in both,
    every token."""
    model, t = dit(attention="factorised"), torch.rand(1)
    x = torch.randn(1, 4, 3, 4, 4)
    y = x.clone()
    y[0, :, 1, 0, 0] += 1
    both = (model(x, t) - model(y, t)).abs().amax(dim=(0, 1))
    assert (both > 0).all()
    model.blocks = model.blocks[:1]
    first = (model(x, t) - model(y, t)).abs().amax(dim=(0, 1, 3, 4))  # by frame
    assert first[1] > 0
    assert first[0] == first[2] == 0


def test_patches_go_back_to_where_they_came_from():
    x, patch = torch.randn(2, 3, 4, 6, 8), (2, 3, 4)
    tokens = patchify(x, patch)
    assert tokens.shape == (2, 2 * 2 * 2, 3 * 24)
    channels_last = tokens.unflatten(-1, (3, 24)).transpose(-1, -2).flatten(-2)
    assert torch.equal(unpatchify(channels_last, (2, 2, 2), patch), x)


def test_an_image_gets_dits_own_positions_and_frames_differ():
    image, video = (sincos_positions((t, 2, 3), 8, CPU) for t in (1, 2))
    # DiT: sin and cos of the column, then of the row, at frequencies 1 and 1/100 (width 8: two
    # each)
    column, row = 2.0, 1.0
    expected = [
        f(p * w)
        for p in (column, row)
        for f in (torch.sin, torch.cos)
        for w in (torch.tensor(1.0), torch.tensor(0.01))
    ]
    torch.testing.assert_close(image[1 * 3 + 2], torch.stack(expected))
    assert (video[:6] - video[6:]).abs().max() > 0.1


def test_rope_depends_on_differences_of_position_alone():
    cos, sin = rope_angles((4, 5, 6), (4, 6, 6), CPU)
    q, k = torch.randn(16), torch.randn(16)

    def score(a: tuple[int, int, int], b: tuple[int, int, int]) -> torch.Tensor:
        i, j = ((t * 5 + h) * 6 + w for t, h, w in (a, b))
        return (
            apply_rope(q[None], cos[i : i + 1], sin[i : i + 1])
            @ apply_rope(k[None], cos[j : j + 1], sin[j : j + 1]).T
        )

    torch.testing.assert_close(score((0, 0, 0), (1, 2, 3)), score((2, 1, 2), (3, 3, 5)))
    assert not torch.allclose(score((0, 0, 0), (1, 2, 3)), score((0, 0, 0), (2, 2, 3)))


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("causal", [True, False])
@torch.no_grad()
def test_vae_shapes(causal, alone):
    model = vae(causal=causal, first_frame_alone=alone, temporal_factor=4)
    for frames, height, width in ((1, 16, 8), (9, 8, 24), *(() if alone else ((6, 8, 8),))):
        video = torch.randn(2, 3, frames, height, width)
        mean, logvar = model.encode(video)
        assert (
            mean.shape == logvar.shape == (2, 4, *model.config.latent_shape(frames, height, width))
        )
        assert model.decode(reparameterise(mean, logvar), frames).shape == video.shape


@pytest.mark.parametrize("alone", [True, False])
@torch.no_grad()
def test_causal_vae_does_not_see_later_frames(alone):
    model = vae(first_frame_alone=alone, temporal_factor=4).double()
    group = 4
    frames = 2 * group + alone
    video = torch.randn(1, 3, frames + group, 16, 16, dtype=torch.double)
    later = video.clone()
    later[:, :, frames:] += 1
    a, b = (model.encode(v)[0] for v in (video, later))
    seen = model.config.latent_frames(frames)
    assert torch.equal(a[:, :, :seen], b[:, :, :seen])
    assert not torch.equal(a[:, :, seen:], b[:, :, seen:])
    latents = a.clone()
    latents[:, :, seen:] += 1
    assert torch.equal(model.decode(a)[:, :, :frames], model.decode(latents)[:, :, :frames])


@torch.no_grad()
def test_symmetric_vae_does_see_later_frames():
    model = vae(causal=False, temporal_factor=4)
    video = torch.randn(1, 3, 12, 8, 8)
    later = video.clone()
    later[:, :, 8:] += 1
    assert (model.encode(video)[0][:, :, :2] - model.encode(later)[0][:, :, :2]).abs().max() > 1e-6


@torch.no_grad()
def test_every_frame_reaches_the_latents():
    """1,440 frames into 180: the last frames of a group must not fall through the strided
    convolutions."""
    model = vae().double()
    video = torch.randn(1, 3, 16, 8, 8, dtype=torch.double)
    base = model.encode(video)[0]
    for frame in range(16):
        changed = video.clone()
        changed[:, :, frame] += 1
        assert (model.encode(changed)[0] - base).abs().max() > 1e-9, frame


def test_vae_refuses_frames_it_cannot_take():
    with pytest.raises(ValueError, match="20 frames.*17 or 21"):
        vae(first_frame_alone=True, temporal_factor=4).encode(torch.randn(1, 3, 20, 8, 8))


@torch.no_grad()
def test_reparameterise_has_the_encoded_mean_and_variance():
    mean, logvar = torch.full((1, 1, 1, 200, 200), 2.0), torch.full((1, 1, 1, 200, 200), -1.0)
    sample = reparameterise(mean, logvar, torch.Generator().manual_seed(0))
    assert sample.mean().item() == pytest.approx(2.0, abs=4 * 0.61 / 200)  # four standard errors
    assert sample.std().item() == pytest.approx(0.6065, abs=0.01)  # exp(-1/2)


@pytest.mark.parametrize("name", ["tiny", "tiny-factorised"])
@torch.no_grad()
def test_pipeline_from_text_to_video(name):
    point = load_point(name, "tiny-clip", "eager-fp32")
    model, workload = point.model, point.workload
    pipeline = build_pipeline(
        model.denoiser, model.vae, model.text_encoders, device=CPU, dtype=torch.float32, seed=0
    )
    inputs = example_inputs(
        pipeline,
        batch=1,
        channels=4,
        latent_shape=model.latent_shape(workload),
        device=CPU,
        dtype=torch.float32,
        seed=1,
    )
    (text,) = pipeline.encode_text(inputs.text_embeddings)
    condition, empty = {"text": text.mean(dim=1)}, {"text": torch.zeros(1, text.shape[-1])}
    video = pipeline.generate(inputs.latents, 2, condition, workload.frames, empty, 3.0)
    assert video.shape == (1, 3, 17, 64, 64)
    assert video.isfinite().all()


@torch.no_grad()
def test_guidance_of_one_is_no_guidance_and_steps_integrate_a_constant_velocity():
    point = load_point("tiny", "tiny-image", "eager-fp32")
    model = point.model
    pipeline = build_pipeline(
        model.denoiser, model.vae, model.text_encoders, device=CPU, dtype=torch.float32, seed=0
    )
    inputs = example_inputs(
        pipeline,
        batch=1,
        channels=4,
        latent_shape=(1, 16, 16),
        device=CPU,
        dtype=torch.float32,
        seed=1,
    )
    other = {"text": inputs.condition["text"] + 1}
    plain = pipeline.denoise_step(inputs.latents, inputs.t, -0.1, inputs.condition, None, 1.0)
    guided = pipeline.denoise_step(inputs.latents, inputs.t, -0.1, inputs.condition, other, 1.0)
    torch.testing.assert_close(plain, guided)
    assert not torch.allclose(
        pipeline.denoise_step(inputs.latents, inputs.t, -0.1, inputs.condition, other, 3.0), plain
    )
    pipeline.denoiser.forward = lambda x, t, **condition: torch.full_like(x, 2.0)
    pipeline.vae.decode = lambda z, frames: z
    torch.testing.assert_close(
        pipeline.generate(inputs.latents, 5, inputs.condition, 1), inputs.latents - 2.0
    )


def test_only_the_parts_a_stage_runs_are_allocated():
    model = load_point("tiny", "tiny-image", "eager-fp32").model
    pipeline = build_pipeline(
        model.denoiser,
        model.vae,
        model.text_encoders,
        device=CPU,
        dtype=torch.float32,
        seed=0,
        stages=["vae_decode"],
    )
    assert not next(pipeline.vae.parameters()).is_meta
    assert next(pipeline.denoiser.parameters()).is_meta


@torch.no_grad()
def test_weights_and_inputs_repeat_by_seed():
    model = load_point("tiny", "tiny-image", "eager-fp32").model

    def output(seed: int) -> torch.Tensor:
        pipeline = build_pipeline(
            model.denoiser,
            model.vae,
            model.text_encoders,
            device=CPU,
            dtype=torch.float32,
            seed=seed,
        )
        inputs = example_inputs(
            pipeline,
            batch=1,
            channels=4,
            latent_shape=(1, 16, 16),
            device=CPU,
            dtype=torch.float32,
            seed=1,
        )
        request = StageRequest(frames=1, height=64, width=64, guided=False, steps=1, seed=1)
        return stage_calls(pipeline, inputs, request)["forward"]()

    assert torch.equal(output(0), output(0))
    assert not torch.equal(output(0), output(1))
