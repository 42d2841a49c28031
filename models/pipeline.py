"""Text -> latents -> denoise -> decode, as stages that can be timed one by one.  Own and public
models alike.

Shapes: B batch, C channels, T H W latents, L text tokens, D width.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from models import draw
from models.ar.model import AutoregressiveTransformer, decoding_calls
from models.ar.spec import AutoregressiveConfig
from models.caching.own import CONDITIONAL
from models.caching.schedules import DraftConfig
from models.diffusion.draft import denoise_drafted
from models.diffusion.trajectory import Guided, answer, denoise, predict
from models.dit.model import SpatioTemporalDiT
from models.layers import init_benchmark_weights
from models.spec import (
    DiffusersDenoiser,
    DiffusersVAE,
    DiTConfig,
    ObjectiveConfig,
    SamplerConfig,
    TextEncoderConfig,
    VAEConfig,
)
from models.text import TextEncoder
from models.training import training_step
from models.vae.model import VideoVAE, reparameterise
from models.vae.parts import decode_in_parts
from models.vae.tiling import Tiling

Condition = dict[str, Tensor]
"""What a denoiser takes beside latents and time, by keyword."""

PARTS_OF_STAGE = {
    "forward": "denoiser",
    "denoise_step": "denoiser",
    "trajectory": "denoiser",
    "train_step": "denoiser",
    "prefill": "denoiser",
    "decode_token": "denoiser",
    "vae_decode": "vae",
    "vae_encode": "vae",
    "condition_encode": "vae",
    "text_encode": "text_encoder",
}


@dataclass(frozen=True)
class Drafter:
    """A small model and the steps it takes."""

    denoiser: nn.Module
    config: DraftConfig


@dataclass
class VideoPipeline:
    """A denoiser with its VAE and text encoders; built by `build_pipeline`."""

    denoiser: nn.Module
    """SpatioTemporalDiT, or a public one (models.public.zoo.PublicDenoiser): forward(x, t,
    **condition).  Or an AutoregressiveTransformer, which makes the same latents token by token."""
    vae: nn.Module
    """VideoVAE, or a public one (models.public.zoo.PublicVAE): encode, decode."""
    text_encoders: list[TextEncoder]
    guidance: str = "sequential"
    """How a guided step gets its two answers: two forwards, one of twice the batch (batched), or
    one of two packed requests (packed, own denoisers)."""
    draft: "Drafter | None" = None
    """A smaller model that takes some steps of a trajectory."""

    def encode_text(self, embeddings: list[Tensor]) -> list[Tensor]:
        """One (B, L, D) of token embeddings per encoder -> the same shapes."""
        return [encoder(x) for encoder, x in zip(self.text_encoders, embeddings, strict=True)]

    def predict(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """One forward of the denoiser, without a learned variance.  (B, C, T, H, W) -> same."""
        return predict(self.denoiser, x, t, condition, CONDITIONAL)

    def denoise_step(
        self,
        x: Tensor,
        t: Tensor,
        dt: float,
        condition: Condition,
        unconditional: Condition | None,
        guidance_scale: float,
    ) -> Tensor:
        """One Euler step of the probability-flow ODE (SiT, arXiv 2401.08740), x + dt * velocity."""
        return x + dt * answer(
            self.denoiser, x, t, condition, unconditional, guidance_scale, self.guidance
        )

    @torch.no_grad()
    def trajectory(
        self,
        noise: Tensor,
        sampler: SamplerConfig,
        condition: Condition,
        unconditional: Condition | None,
        guidance_scale: float,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Noise (B, C, T, H, W) -> latents, same shape, by a sampler; `generator` feeds the
        stochastic ones."""
        own = Guided(
            self.denoiser, condition, unconditional, guidance_scale, guidance=self.guidance
        )
        if self.draft is None:
            return denoise(own, noise, sampler, generator)
        small = Guided(
            self.draft.denoiser, condition, unconditional, guidance_scale, guidance=self.guidance
        )
        return denoise_drafted(small, own, noise, sampler, self.draft.config, generator).latents

    @torch.no_grad()
    def generate(
        self,
        noise: Tensor,
        steps: int,
        condition: Condition,
        frames: int,
        unconditional: Condition | None = None,
        guidance_scale: float = 1.0,
    ) -> Tensor:
        """Integrate from t = 1 (noise) to 0 and decode.  noise (B, C, T, H, W) -> video (B, 3,
        frames, s H, s W)."""
        x = noise
        for i in range(steps):
            self.denoiser.at(1.0 - i / steps)
            t = torch.full((x.shape[0],), 1.0 - i / steps, device=x.device)
            x = self.denoise_step(x, t, -1.0 / steps, condition, unconditional, guidance_scale)
        return self.vae.decode(x, frames)


def build_pipeline(
    denoiser: DiTConfig | DiffusersDenoiser | AutoregressiveConfig,
    vae: VAEConfig | DiffusersVAE,
    text_encoders: Iterable[TextEncoderConfig],
    *,
    device: torch.device,
    dtype: torch.dtype,
    seed: int,
    stages: Iterable[str] = tuple(PARTS_OF_STAGE),
) -> VideoPipeline:
    """Build on `device` with random benchmark weights; on "meta" nothing is allocated.

    Parts that none of `stages` runs stay on meta.  Modules are laid out on meta first, so that a 20
    B model never exists twice or in float32."""
    stages = tuple(stages)
    needed = {PARTS_OF_STAGE[stage] for stage in stages}

    def part(name: str, config: object, offset: int) -> nn.Module:
        where = device if name in needed else torch.device("meta")
        if isinstance(config, (DiffusersDenoiser, DiffusersVAE)):
            from models.public import zoo  # diffusers takes seconds to import

            module = zoo.build(config, where, dtype)
        else:
            with torch.device("meta"):
                module = OWN[type(config)](config)
            module = module.to(dtype)
            if where.type != "meta":
                module = module.to_empty(device=where)
        init_benchmark_weights(module, seed + offset)  # does nothing on meta
        module.requires_grad_("train_step" in stages and name == "denoiser")
        return module.eval()

    return VideoPipeline(
        denoiser=part("denoiser", denoiser, 0),
        vae=part("vae", vae, 1),
        text_encoders=[
            part("text_encoder", config, 2 + i) for i, config in enumerate(text_encoders)
        ],
    )


GUIDANCE_SCALE = 5.0  # Wan 2.1's (its released pipeline); on random weights any will do
TRAINING = ObjectiveConfig(path="linear", prediction="velocity", times="uniform")


def _train(denoiser: nn.Module, latents: Tensor, condition: Condition) -> Tensor:
    """One forward and backward; gradients are dropped, as an optimiser would after using them."""
    with torch.inference_mode(False), torch.enable_grad():
        loss = training_step(denoiser, latents, condition, TRAINING)
    denoiser.zero_grad(set_to_none=True)
    return loss


OWN = {
    DiTConfig: SpatioTemporalDiT,
    AutoregressiveConfig: AutoregressiveTransformer,
    VAEConfig: VideoVAE,
    TextEncoderConfig: TextEncoder,
}


@dataclass(frozen=True)
class StageInputs:
    """Random inputs for one workload, never zeros (all-zero operands run faster than real ones)."""

    latents: Tensor
    """(B, C, T, H, W)."""
    t: Tensor
    """(B,) in [0, 1], float32."""
    condition: Condition
    unconditional: Condition
    text_embeddings: list[Tensor]
    """(B, L, D) for each text encoder."""


def example_inputs(
    pipeline: VideoPipeline,
    *,
    batch: int,
    channels: int,
    latent_shape: tuple[int, int, int],
    device: torch.device,
    dtype: torch.dtype,
    seed: int,
) -> StageInputs:
    """Inputs of the right shapes on `device`; on "meta" nothing is allocated.  A sample is what it
    would be alone: the batch around it changes nothing."""
    generators = [
        None if device.type == "meta" else torch.Generator(device).manual_seed(seed + i)
        for i in range(batch)
    ]

    def randn(*shape: int) -> Tensor:
        one = shape[1:] if shape[0] == batch else shape
        drawn = [draw.normal(*one, generator=g, device=device, dtype=dtype) for g in generators]
        return torch.stack(drawn) if shape[0] == batch else drawn[0]

    return StageInputs(
        latents=randn(batch, channels, *latent_shape),
        t=torch.full((batch,), 0.5, device=device),
        condition=pipeline.denoiser.example_condition(
            latent_shape, batch, randn, unconditional=False
        ),
        unconditional=pipeline.denoiser.example_condition(
            latent_shape, batch, randn, unconditional=True
        ),
        text_embeddings=[
            randn(batch, e.config.tokens, e.config.width) for e in pipeline.text_encoders
        ],
    )


def stage_calls(
    pipeline: VideoPipeline,
    inputs: StageInputs,
    *,
    frames: int,
    height: int,
    width: int,
    guided: bool,
    steps: int,
    seed: int,
    encoded_frames: int = 0,
    control: bool = False,
    chunk: int | None = None,
    tiling: Tiling | None = None,
    train: bool = False,
    sampler: SamplerConfig | None = None,
) -> dict[str, Callable[..., object]]:
    """The stages as calls without arguments: forward, denoise_step, vae_decode, vae_encode,
    text_encode, and condition_encode where frames or a control video are given.  Of an
    auto-regressive model prefill and decode_token in place of denoise_step.

    encoded_frames, control: what condition_encode encodes; chunk, tiling: decode in such parts,
    else in one piece; train: add train_step, one forward and backward on the velocity loss, the
    optimiser left out; sampler: add trajectory, all its steps from noise to latents.  vae_decode
    takes other latents of the same shape, too. The pixels that the encoders need are made at their
    first call, since a minute of video is large."""
    latents, device = inputs.latents, inputs.latents.device

    @cache
    def video(length: int) -> Tensor:
        g = None if device.type == "meta" else torch.Generator(device).manual_seed(seed)
        return draw.uniform(
            latents.shape[0],
            3,
            length,
            height,
            width,
            generator=g,
            device=device,
            dtype=latents.dtype,
        )

    def decode(x: Tensor = latents) -> Tensor:
        if chunk is None:
            return pipeline.vae.decode(x, frames)
        return decode_in_parts(pipeline.vae, x, frames, chunk=chunk, tiling=tiling)

    def step() -> Tensor:
        cache = getattr(pipeline.denoiser, "cache", None)
        if cache is not None:
            cache.begin(1)  # a step that is computed in full
        return pipeline.denoise_step(
            latents,
            inputs.t,
            -1.0 / steps,
            inputs.condition,
            inputs.unconditional if guided else None,
            GUIDANCE_SCALE,
        )

    def trajectory() -> Tensor:
        assert sampler is not None
        generator = None if device.type == "meta" else torch.Generator(device).manual_seed(seed)
        return pipeline.trajectory(
            latents,
            sampler,
            inputs.condition,
            inputs.unconditional if guided else None,
            GUIDANCE_SCALE,
            generator,
        )

    def encode_condition() -> list[Tensor]:
        clips = ([encoded_frames] if encoded_frames else []) + ([frames] if control else [])
        return [pipeline.vae.encode(video(length))[0] for length in clips]

    calls: dict[str, Callable[..., object]]
    if isinstance(pipeline.denoiser, AutoregressiveTransformer):
        calls = decoding_calls(
            pipeline.denoiser,
            latents,
            inputs.condition,
            inputs.unconditional if guided else None,
            seed,
        )
    else:
        calls = {
            "forward": lambda: pipeline.predict(latents, inputs.t, inputs.condition),
            "denoise_step": step,
        }
    calls |= {
        "vae_decode": decode,
        "vae_encode": lambda: reparameterise(*pipeline.vae.encode(video(frames))),
    }
    if sampler is not None:
        calls["trajectory"] = trajectory
    if train:
        calls["train_step"] = lambda: _train(pipeline.denoiser, latents, inputs.condition)
    if encoded_frames or control:
        calls["condition_encode"] = encode_condition
    if pipeline.text_encoders:
        calls["text_encode"] = lambda: pipeline.encode_text(inputs.text_embeddings)
    return calls
