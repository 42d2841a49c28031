"""Text -> latents -> denoise -> decode, as stages that can be timed one by one.

Shapes: B batch, C channels, T H W latents, L text tokens, D width.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from models.dit import SpatioTemporalDiT
from models.layers import init_benchmark_weights
from models.spec import DiTConfig, TextEncoderConfig, VAEConfig
from models.text import TextEncoder
from models.vae import VideoVAE


@dataclass(frozen=True)
class Condition:
    """What the denoiser is conditioned on; one or both are None."""

    labels: Tensor | None
    """(B,) class indices."""
    text: Tensor | None
    """(B, D_text) pooled."""


@dataclass
class VideoPipeline:
    """A denoiser with its VAE and text encoder; built by `build_pipeline`."""

    denoiser: SpatioTemporalDiT
    vae: VideoVAE
    text_encoder: TextEncoder | None

    def encode_text(self, tokens: Tensor) -> Tensor:
        """tokens (B, L, D) embeddings -> (B, D) pooled."""
        if self.text_encoder is None:
            raise ValueError("this model has no text encoder")
        return self.text_encoder(tokens)

    def predict(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """One forward of the denoiser, without a learned variance.  (B, C, T, H, W) -> same."""
        out = self.denoiser(x, t, labels=condition.labels, text=condition.text)
        return out[:, : x.shape[1]]

    def denoise_step(self, x: Tensor, t: Tensor, dt: float, condition: Condition,
                     unconditional: Condition | None, guidance_scale: float) -> Tensor:
        """One Euler step of the probability-flow ODE (SiT, arXiv 2401.08740), x + dt * velocity.

        With `unconditional`, a second forward and classifier-free guidance (arXiv 2207.12598)."""
        velocity = self.predict(x, t, condition)
        if unconditional is not None:
            base = self.predict(x, t, unconditional)
            velocity = base + guidance_scale * (velocity - base)
        return x + dt * velocity

    @torch.no_grad()
    def generate(self, noise: Tensor, steps: int, condition: Condition, frames: int,
                 unconditional: Condition | None = None, guidance_scale: float = 1.0) -> Tensor:
        """Integrate from t = 1 (noise) to 0 and decode.  noise (B, C, T, H, W) -> video (B, 3, frames, s H, s W)."""
        x = noise
        for i in range(steps):
            t = torch.full((x.shape[0],), 1.0 - i / steps, device=x.device)
            x = self.denoise_step(x, t, -1.0 / steps, condition, unconditional, guidance_scale)
        return self.vae.decode(x, frames)

    def condition(self, batch: int, text: Tensor | None, *, unconditional: bool, generator: torch.Generator | None,
                  device: torch.device) -> Condition:
        """Class labels drawn at random (the extra class when unconditional), and the pooled text."""
        labels = None
        classes = self.denoiser.config.num_classes
        if classes:
            labels = (torch.full((batch,), classes, device=device) if unconditional
                      else torch.randint(0, classes, (batch,), generator=generator, device=device))
        return Condition(labels=labels, text=text)


PARTS_OF_STAGE = {"forward": "denoiser", "denoise_step": "denoiser", "vae_decode": "vae", "vae_encode": "vae",
                  "text_encode": "text_encoder"}


def build_pipeline(denoiser: DiTConfig, vae: VAEConfig, text_encoder: TextEncoderConfig | None, *,
                   device: torch.device, dtype: torch.dtype, seed: int,
                   stages: Iterable[str] = tuple(PARTS_OF_STAGE)) -> VideoPipeline:
    """Build on `device` with random benchmark weights; on "meta" nothing is allocated.

    Parts that none of `stages` runs stay on meta.  Modules are laid out on meta first, so that a 20 B model never
    exists twice or in float32."""
    needed = {PARTS_OF_STAGE[stage] for stage in stages}

    def part(name: str, kind: type[nn.Module], config: object, offset: int) -> nn.Module:
        with torch.device("meta"):
            module = kind(config)
        module = module.to(dtype).eval().requires_grad_(False)
        if device.type != "meta" and name in needed:
            module = module.to_empty(device=device)
            init_benchmark_weights(module, seed + offset)
        return module

    return VideoPipeline(
        denoiser=part("denoiser", SpatioTemporalDiT, denoiser, 0),
        vae=part("vae", VideoVAE, vae, 1),
        text_encoder=None if text_encoder is None else part("text_encoder", TextEncoder, text_encoder, 2),
    )


@dataclass(frozen=True)
class StageInputs:
    """Random inputs for one workload, never zeros (all-zero operands run faster than real ones)."""

    latents: Tensor
    """(B, C, T, H, W)."""
    t: Tensor
    """(B,) in [0, 1], float32."""
    condition: Condition
    text_tokens: Tensor | None
    """(B, L, D_text) embeddings."""


def example_inputs(pipeline: VideoPipeline, *, batch: int, latent_shape: tuple[int, int, int], device: torch.device,
                   dtype: torch.dtype, seed: int) -> StageInputs:
    """Inputs of the right shapes on `device`; on "meta" nothing is allocated."""
    g = None if device.type == "meta" else torch.Generator(device).manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, device=device, dtype=dtype)

    text = text_tokens = None
    if pipeline.text_encoder is not None:
        config = pipeline.text_encoder.config
        text, text_tokens = randn(batch, config.width), randn(batch, config.tokens, config.width)
    return StageInputs(
        latents=randn(batch, pipeline.denoiser.config.in_channels, *latent_shape),
        t=torch.full((batch,), 0.5, device=device),
        condition=pipeline.condition(batch, text, unconditional=False, generator=g, device=device),
        text_tokens=text_tokens,
    )


def stage_calls(pipeline: VideoPipeline, inputs: StageInputs, *, frames: int, height: int, width: int,
                guided: bool, steps: int, seed: int) -> dict[str, Callable[[], Tensor]]:
    """The stages as calls without arguments: forward, denoise_step, vae_decode, vae_encode, text_encode.

    The pixels that vae_encode needs are made at its first call, since a minute of video is large."""
    latents, device = inputs.latents, inputs.latents.device
    batch = latents.shape[0]
    unconditional = None
    if guided:
        unconditional = pipeline.condition(batch, inputs.condition.text, unconditional=True, generator=None,
                                           device=device)

    @cache
    def video() -> Tensor:
        g = None if device.type == "meta" else torch.Generator(device).manual_seed(seed)
        pixels = torch.rand(batch, pipeline.vae.config.in_channels, frames, height, width, generator=g, device=device)
        return (2 * pixels - 1).to(latents.dtype)

    def encode() -> Tensor:
        mean, logvar = pipeline.vae.encode(video())
        return pipeline.vae.reparameterise(mean, logvar)

    calls = {
        "forward": lambda: pipeline.predict(latents, inputs.t, inputs.condition),
        "denoise_step": lambda: pipeline.denoise_step(
            latents, inputs.t, -1.0 / steps, inputs.condition, unconditional, guidance_scale=5.0),
        "vae_decode": lambda: pipeline.vae.decode(latents, frames),
        "vae_encode": encode,
    }
    if inputs.text_tokens is not None:
        calls["text_encode"] = lambda: pipeline.encode_text(inputs.text_tokens)
    return calls
