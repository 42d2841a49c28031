"""Initial weights, losses, gradients with and without checkpointing, and that it learns:
docs/learn.py in a short form."""

import importlib
import math
from dataclasses import replace

import pytest
import torch
from PIL import Image
from rich.progress import Progress

from models.dit.model import SpatioTemporalDiT
from models.layers import init_benchmark_weights
from models.spec import DiTConfig, ObjectiveConfig, VAEConfig
from models.training import (
    init_training_weights,
    kl_divergence,
    psnr,
    training_step,
    vae_loss,
    vae_training_step,
)
from models.vae.model import VideoVAE
from support.models.specs import DIT, VAE
from support.paths import ROOT

pytestmark = pytest.mark.usefixtures("one_thread")
OBJECTIVE = ObjectiveConfig(path="linear", prediction="velocity", times="uniform")


def denoiser(**change) -> SpatioTemporalDiT:
    return SpatioTemporalDiT(DiTConfig(**{**DIT, **change}))


@pytest.mark.parametrize("prediction", ["velocity", "noise"])
@pytest.mark.parametrize("attention", ["full", "factorised"])
def test_checkpointing_changes_memory_and_nothing_else(attention, prediction):
    model = denoiser(attention=attention, num_classes=3)
    init_benchmark_weights(model, 0)  # all blocks act, so that every gradient is non-zero
    x0, condition = torch.randn(2, 4, 2, 4, 4), {"labels": torch.tensor([1, 2])}
    objective = ObjectiveConfig(path="gvp", prediction=prediction, times="uniform")
    calls, gradients, losses = [], [], []
    for block in model.blocks:
        block.register_forward_pre_hook(lambda *_: calls.append(1))
    for model.gradient_checkpointing in (False, True):
        model.zero_grad()
        calls.clear()
        losses.append(
            training_step(model, x0, condition, objective, torch.Generator().manual_seed(0))
        )
        assert len(calls) == len(model.blocks) * (2 if model.gradient_checkpointing else 1)
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters()})
    assert torch.equal(*losses)
    for name, plain in gradients[0].items():
        assert plain.abs().max() > 0, name
        torch.testing.assert_close(plain, gradients[1][name], rtol=1e-5, atol=1e-7, msg=name)


@torch.no_grad()
def test_checkpointing_costs_nothing_without_gradients():
    model, calls = denoiser(), []
    model.gradient_checkpointing = True
    model.blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
    assert model(torch.randn(1, 4, 1, 4, 4), torch.rand(1)).shape == (1, 4, 1, 4, 4)
    assert len(calls) == 1


def test_step_is_the_gradient_of_its_loss_and_adds_up():
    model, x0 = denoiser(), torch.randn(2, 4, 2, 4, 4)
    init_benchmark_weights(model, 0)

    def loss() -> float:
        return training_step(model, x0, {}, OBJECTIVE, torch.Generator().manual_seed(0)).item()

    model = model.double()
    x0, weight = x0.double(), model.blocks[0].mlp.fc1.weight
    loss()
    gradient = weight.grad[0, 0].item()
    with torch.no_grad():
        weight[0, 0] += 1e-5
    high = loss()
    assert weight.grad[0, 0].item() == pytest.approx(
        2 * gradient, rel=1e-3
    )  # not zeroed in between
    with torch.no_grad():
        weight[0, 0] -= 2e-5
    assert (high - loss()) / 2e-5 == pytest.approx(gradient, rel=1e-3)


@pytest.mark.parametrize(
    "change",
    [
        {"num_classes": 3},
        {"modulation": "shared"},
        {"text": "cross", "text_width": 12, "text_tokens": 5},
        {
            "text": "joint",
            "text_width": 12,
            "text_tokens": 5,
            "single_blocks": 1,
            "qk_norm": "per_head",
        },
        {"control_blocks": 1},
    ],
    ids=lambda change: "-".join(map(str, change)),
)
@torch.no_grad()
def test_denoisers_start_as_the_identity_and_zero(change):
    """adaLN-Zero: every block gives what it takes, and the output is 0; what comes in beside it
    adds nothing yet."""
    model, x = denoiser(**change), torch.randn(2, 4, 2, 4, 4)
    init_training_weights(model, 0)
    seen = []
    for block in model.blocks:
        block.register_forward_hook(
            lambda _, given, out: seen.append(torch.equal(given[0], out[0]))
        )
    out = model(
        x, torch.rand(2), **model.example_condition((2, 4, 4), 2, torch.randn, unconditional=False)
    )
    assert (out == 0).all()
    assert seen == [True, True]
    assert all(p.isfinite().all() for p in model.parameters())


@torch.no_grad()
def test_vaes_start_nearly_without_noise_and_repeat_by_seed():
    vae = VideoVAE(VAEConfig(**VAE))
    init_training_weights(vae, 0)
    _, logvar = vae.encode(torch.rand(1, 3, 5, 16, 16) * 2 - 1)
    assert (logvar == -6).all()
    again = VideoVAE(VAEConfig(**VAE))
    init_training_weights(again, 0)
    assert all(torch.equal(a, b) for a, b in zip(vae.parameters(), again.parameters(), strict=True))


def test_vae_loss_has_its_two_terms():
    vae = VideoVAE(VAEConfig(**VAE))
    init_training_weights(vae, 0)
    video = torch.rand(1, 3, 5, 16, 16) * 2 - 1
    mean, logvar = vae.encode(video)
    without, with_kl = (
        vae_loss(vae, video, w, torch.Generator().manual_seed(0)) for w in (0.0, 0.5)
    )
    torch.testing.assert_close(
        with_kl - without, 0.5 * kl_divergence(mean, logvar), rtol=1e-4, atol=1e-5
    )
    # against torch's own KL
    p = torch.distributions.Normal(mean, (0.5 * logvar).exp())
    own = torch.distributions.kl_divergence(p, torch.distributions.Normal(0.0, 1.0)).mean()
    torch.testing.assert_close(kl_divergence(mean, logvar), own)
    assert vae_training_step(vae, video, 0.0) > 0
    assert all(p.grad is not None for p in vae.parameters())


def test_psnr():
    a = torch.zeros(1, 3, 1, 4, 4)
    assert psnr(a, a + 0.2) == pytest.approx(20.0, abs=1e-3)  # peak 2, error 0.2: 20 log10(10)
    assert psnr(a + 1, a + 5) == math.inf  # what is out of range is clipped


# --- it learns
# ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def learn_script():
    """docs/learn.py as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "docs")
        yield importlib.import_module("learn")


def test_a_few_steps_lower_the_losses_and_raise_the_psnr(learn_script, tmp_path):
    """A corner of the clip, 5 frames of 32 x 32, in seconds; the same code as the whole."""
    clip = learn_script.load_clip()[:, :, :5, 16:48, 32:64].contiguous()
    dit = replace(learn_script.DIT, width=128, depth=2, num_heads=4, patch_size=(1, 2, 2))
    with Progress(disable=True) as progress:
        learned = learn_script.learn(
            clip,
            learn_script.VAE,
            dit,
            learn_script.Training(steps=45, learning_rate=4e-3, batch=4),
            learn_script.Training(steps=130, learning_rate=4e-3, batch=8),
            (5, 24, 24),
            0,
            progress,
        )
    assert sum(learned.vae_losses[-5:]) < sum(learned.vae_losses[:5]) / 2  # measured: a third
    assert sum(learned.dit_losses[-5:]) < sum(learned.dit_losses[:5]) / 8  # a thirteenth
    assert learned.psnr_reconstructed > learned.psnr_untrained + 3  # 6 dB
    for video in learned.sampled.values():
        assert video.shape == clip.shape
    assert min(learned.psnr_sampled.values()) > learned.psnr_reconstructed - 1  # 0.04 dB below
    learn_script.save_strip(list(learn_script.rows(learned).values()), tmp_path / "strip.png")
    moving = [learned.original, learned.reconstructed, learned.sampled["heun"]]
    learn_script.save_gif(moving, learn_script.CLIP_FPS, tmp_path / "moving.gif")
    assert Image.open(tmp_path / "strip.png").width > 400
    moving = Image.open(tmp_path / "moving.gif")
    assert (moving.n_frames, moving.size) == (5, (3 * 32 * 2, 32 * 2))


@pytest.mark.slow
def test_the_whole_clip_is_learned(learn_script):
    """The demo at a quarter of its steps: minutes on one core."""
    with Progress(disable=True) as progress:
        learned = learn_script.learn(
            learn_script.load_clip(),
            learn_script.VAE,
            learn_script.DIT,
            learn_script.Training(steps=200, learning_rate=3e-3, batch=4),
            learn_script.Training(steps=250, learning_rate=1.5e-3, batch=4),
            (9, 32, 32),
            0,
            progress,
        )
    assert learned.psnr_untrained < 14
    assert learned.psnr_reconstructed > 20
    assert min(learned.psnr_sampled.values()) > 17
    assert sum(learned.dit_losses[-20:]) < sum(learned.dit_losses[:20]) / 4
