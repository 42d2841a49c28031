"""Public models through their diffusers classes, built from config with random weights.

One shape for all: `PublicDenoiser` and `PublicVAE` are called as own models are, (B, C, T, H, W) in and out; what differs
between the classes stands in ADAPTERS, one entry a class.  Weights of a local folder can be loaded into `.model`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import diffusers
from torch import Tensor, nn

from models.spec import DiffusersDenoiser, DiffusersVAE

TIME_SCALE = 1000.0     # t in [0, 1] becomes the classes' 0..1000


@dataclass(frozen=True)
class Adapter:
    """How one diffusers class is called."""

    condition: Callable[[DiffusersDenoiser, Any, int, Callable[..., Tensor]], dict[str, Tensor]]
    """(spec, model's config, batch, randn) -> the tensors it takes beside latents and time."""
    call: Callable[[nn.Module, Tensor, Tensor, dict[str, Tensor]], Tensor]
    """(model, latents (B, C, T, H, W), timestep (B,) in 0..1000, condition) -> (B, >= C, T, H, W)."""


def _wan_condition(spec: DiffusersDenoiser, config: Any, batch: int, randn: Callable[..., Tensor]) -> dict[str, Tensor]:
    return {"encoder_hidden_states": randn(batch, spec.text_tokens, config.text_dim)}


def _direct(model: nn.Module, x: Tensor, timestep: Tensor, condition: dict[str, Tensor]) -> Tensor:
    return model(hidden_states=x, timestep=timestep, return_dict=False, **condition)[0]


ADAPTERS = {
    "WanTransformer3DModel": Adapter(_wan_condition, _direct),
}


class PublicDenoiser(nn.Module):
    """A public denoiser.  Where it holds several experts, `expert` says which one runs."""

    def __init__(self, spec: DiffusersDenoiser):
        super().__init__()
        if spec.diffusers not in ADAPTERS:
            raise ValueError(f"no adapter for diffusers' {spec.diffusers}; there is one for {', '.join(ADAPTERS)}")
        self.spec, self.adapter, self.expert = spec, ADAPTERS[spec.diffusers], 0
        build = getattr(diffusers, spec.diffusers)
        self.experts = nn.ModuleList(build(**spec.config) for _ in range(spec.experts))

    @property
    def model(self) -> nn.Module:
        """The expert that runs."""
        return self.experts[self.expert]

    def forward(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        """x (B, C, T, H, W), t (B,) in [0, 1], condition as example_condition gives it -> (B, >= C, T, H, W)."""
        return self.adapter.call(self.model, x, t * TIME_SCALE, condition)

    def prepare(self, x: Tensor) -> None:
        """Nothing is kept between steps that the classes do not keep themselves."""

    def example_condition(self, latent_shape: tuple[int, int, int], batch: int, randn: Callable[..., Tensor], *,
                          unconditional: bool) -> dict[str, Tensor]:
        """Random text embeddings and whatever else the class takes."""
        return self.adapter.condition(self.spec, self.model.config, batch, randn)


class PublicVAE(nn.Module):
    """A public VAE: encode to mean and log-variance, decode to pixels."""

    def __init__(self, spec: DiffusersVAE):
        super().__init__()
        self.spec = spec
        self.model = getattr(diffusers, spec.diffusers)(**spec.config)

    def encode(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, F, H, W) -> mean and log-variance, each (B, C_latent, T, H/s, W/s)."""
        posterior = self.model.encode(video, return_dict=False)[0]
        return posterior.mean, posterior.logvar

    def decode(self, latents: Tensor, frames: int | None = None) -> Tensor:
        """(B, C_latent, T, H, W) -> (B, 3, F, s H, s W)."""
        video = self.model.decode(latents, return_dict=False)[0]
        return video if frames is None else video[:, :, :frames]

