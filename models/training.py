"""Training: initial weights, losses, and one step of forward and backward.  Shapes: B batch, C
channels, T H W, F frames.

The optimiser and the data stay with the caller: `docs/learn.py` is one that trains, a benchmark
times the step alone.
"""

import torch
from torch import Tensor, nn

from models import draw
from models.diffusion.process import draw_times, prediction_loss
from models.diffusion.spec import ObjectiveConfig
from models.dit.attention import CrossAttention
from models.dit.blocks import FinalLayer, Modulation
from models.dit.model import ControlBranch, SpatioTemporalDiT
from models.layers import Embedder
from models.vae.model import ResBlock, VideoVAE, reparameterise

START_LOGVAR = -6.0  # latents start with noise of deviation 0.05


def training_step(
    model: nn.Module,
    x0: Tensor,
    condition: dict[str, Tensor],
    objective: ObjectiveConfig,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Forward and backward of a denoiser on data x0 (B, C, T, H, W); gradients are added to .grad.

    -> the loss, a scalar without graph.  A learned variance (out_channels over C) gets no gradient
    here."""
    noise = draw.normal(*x0.shape, generator=generator, device=x0.device, dtype=x0.dtype)
    t = draw_times(objective, x0.shape[0], generator, x0)
    loss = prediction_loss(
        lambda x, t: model(x, t, **condition)[:, : x0.shape[1]], x0, noise, t, objective
    )
    loss.backward()
    return loss.detach()


def vae_training_step(
    vae: VideoVAE, video: Tensor, kl_weight: float, generator: torch.Generator | None = None
) -> Tensor:
    """Forward and backward of a VAE on video (B, C, F, H, W); gradients are added to .grad.  -> the
    loss, a scalar."""
    loss = vae_loss(vae, video, kl_weight, generator)
    loss.backward()
    return loss.detach()


def vae_loss(
    vae: VideoVAE, video: Tensor, kl_weight: float, generator: torch.Generator | None = None
) -> Tensor:
    """Mean squared error of the pixels and kl_weight times the latents' mean KL to a standard
    normal.

    Latent diffusion's VAE (arXiv 2112.10752) without its perceptual and adversarial terms."""
    mean, logvar = vae.encode(video)
    out = vae.decode(reparameterise(mean, logvar, generator), video.shape[2])
    return (out - video).square().mean() + kl_weight * kl_divergence(mean, logvar)


def kl_divergence(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL of N(mean, exp(logvar)) to N(0, 1), in nats per latent number, a scalar."""
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()


def psnr(a: Tensor, b: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of pixels in [-1, 1], clipped to it."""
    return (10 * torch.log10(4 / (a.clamp(-1, 1) - b.clamp(-1, 1)).square().mean())).item()


@torch.no_grad()
def init_training_weights(module: nn.Module, seed: int) -> None:
    """Weights to start training from.  `init_benchmark_weights` are for timing: their blocks all
    act at once.

    DiT: adaLN-Zero (arXiv 2212.09748): Xavier-uniform products, embeddings of deviation 0.02,
    modulations and output zero, so that every block starts as the identity and the output as 0.
    VAE: unit gain, every residual branch starts at 0 (arXiv 1901.09321 does so too), the output
    small and the latents nearly without noise: under noise of deviation 1, as a log-variance of 0
    has, the decoder learns several times slower."""
    generator = torch.Generator(next(module.parameters()).device).manual_seed(seed)
    for m in module.modules():
        if isinstance(m, nn.Linear):
            draw.uniform_(m.weight, (6 / sum(m.weight.shape)) ** 0.5, generator)  # Xavier
        elif isinstance(m, nn.Conv3d):
            draw.normal_(m.weight, m.weight[0].numel() ** -0.5, generator)
        elif isinstance(m, nn.Embedding):
            draw.normal_(m.weight, 0.02, generator)
        elif isinstance(getattr(m, "weight", None), nn.Parameter):  # the scale of a norm
            m.weight.fill_(1.0)
        if getattr(m, "bias", None) is not None:
            m.bias.zero_()
    for m in module.modules():
        if isinstance(m, Embedder):
            for layer in (m.fc1, m.fc2):
                draw.normal_(layer.weight, 0.02, generator)
        elif isinstance(m, (Modulation, FinalLayer, CrossAttention, ControlBranch)):
            _zero_what_opens(m)
        elif isinstance(m, SpatioTemporalDiT) and m.shared_modulation is not None:
            m.shared_modulation.weight.zero_()
        elif isinstance(m, ResBlock):
            m.conv2.weight.zero_()
        elif isinstance(m, VideoVAE):
            mean_logvar, pixels = m.encoder.layers[-1].conv, m.decoder.layers[-1].conv
            mean_logvar.weight[m.config.latent_channels :].zero_()
            mean_logvar.bias[m.config.latent_channels :] = START_LOGVAR
            pixels.weight.mul_(0.1)


def _zero_what_opens(m: nn.Module) -> None:
    """Zero what a part adds through: gates, the output, ungated cross-attention (PixArt-alpha),
    ControlNet's hints."""
    if isinstance(m, CrossAttention):
        m.proj.weight.zero_()
    elif isinstance(m, ControlBranch):
        for out in m.outs:
            out.weight.zero_()
    else:
        if m.shared:
            m.table.zero_()
        else:
            (m.linear if isinstance(m, Modulation) else m.modulation).weight.zero_()
        if isinstance(m, FinalLayer):
            m.linear.weight.zero_()
