"""Text -> latents -> denoise -> decode, as stages that can be timed one by one.  Own and public
models alike.

Shapes: B batch, C channels, T H W latents, L text tokens, D width.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from models.ar.model import AutoregressiveTransformer
from models.ar.spec import AutoregressiveConfig
from models.caching.cache import CONDITIONAL
from models.caching.schedules import DraftConfig
from models.diffusion.draft import denoise_drafted
from models.diffusion.spec import SamplerConfig
from models.diffusion.trajectory import Guided, answer, denoise, predict
from models.dit.model import SpatioTemporalDiT
from models.dit.spec import DiTConfig
from models.layers import init_benchmark_weights
from models.public.spec import DiffusersDenoiser, DiffusersVAE
from models.python.build import build as build_own_class
from models.python.spec import PYTHON, PythonDenoiser, PythonTextEncoder, PythonVAE
from models.text.model import TextEncoder
from models.text.spec import TextEncoderConfig
from models.vae.model import VideoVAE
from models.vae.spec import VAEConfig

if TYPE_CHECKING:
    from models.parallel.mesh import Ranks

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
    """SpatioTemporalDiT, a public one (models.public.zoo.PublicDenoiser) or a user's
    (models.python.build): forward(x, t, **condition).  Or an AutoregressiveTransformer, which makes
    the same latents token by token."""
    vae: nn.Module
    """VideoVAE, or a public one (models.public.zoo.PublicVAE): encode, decode."""
    text_encoders: list[nn.Module]
    guidance: str = "sequential"
    """How a guided step gets its two answers: two forwards, one of twice the batch (batched), or
    one of two packed requests (packed, own denoisers)."""
    draft: "Drafter | None" = None
    """A smaller model that takes some steps of a trajectory."""
    decoding: "Ranks | None" = None
    """Ranks that share the VAE's decode."""

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


OWN = {
    DiTConfig: SpatioTemporalDiT,
    AutoregressiveConfig: AutoregressiveTransformer,
    VAEConfig: VideoVAE,
    TextEncoderConfig: TextEncoder,
}


def build_pipeline(
    denoiser: DiTConfig | DiffusersDenoiser | PythonDenoiser | AutoregressiveConfig,
    vae: VAEConfig | DiffusersVAE | PythonVAE,
    text_encoders: Iterable[TextEncoderConfig | PythonTextEncoder],
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
        elif isinstance(config, PYTHON):
            module = build_own_class(config, where, dtype)
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
