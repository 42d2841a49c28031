"""Public models through their diffusers classes, built from config with random or local weights.

One shape for all: `PublicDenoiser` and `PublicVAE` are called as own models are, (B, C, T, H, W) in
and out; what differs between the denoisers' classes stands in models/public/adapters.py, one entry
a class, and between the VAEs' in VAE_CALLS.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
from einops import rearrange
from torch import Tensor, nn

from models.denoiser import Denoiser
from models.lay_out import lay_out
from models.public.adapters import ADAPTERS
from models.public.spec import DiffusersDenoiser, DiffusersVAE
from models.public.weights import load_weights


class PublicDenoiser(Denoiser):
    """A public denoiser.  Where it holds two experts, `expert` says which one runs; `at` sets
    it."""

    def __init__(self, spec: DiffusersDenoiser):
        super().__init__()
        if spec.diffusers not in ADAPTERS:
            raise ValueError(
                f"no adapter for diffusers' {spec.diffusers}; there is one for"
                f" {', '.join(ADAPTERS)}"
            )
        self.spec, self.adapter, self.expert = spec, ADAPTERS[spec.diffusers], 0
        self._prepared: tuple[Any, dict[str, Any]] = (None, {})
        self.experts = nn.ModuleList(_construct(spec) for _ in range(spec.experts))

    @property
    def model(self) -> nn.Module:
        """The expert that runs."""
        return self.experts[self.expert]

    def at(self, t: float) -> None:
        """Choose the expert for time t in [0, 1] (1 is noise).

        t is the caller's number, not a tensor: reading a tensor would wait for the device at every
        step."""
        if self.spec.boundary is not None:
            self.expert = 0 if t >= self.spec.boundary else 1

    def compute(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        """x (B, C, T, H, W), t (B,) in [0, 1], condition as example_condition gives it -> (B, >= C,
        T, H, W)."""
        prepared = self._of_shape(x)
        return self.adapter.call(
            self.spec, self.model, x, t * self.adapter.time_scale, {**prepared, **condition}
        )

    def prepare(self, x: Tensor) -> None:
        """Compute what depends on the shape of x alone, as a pipeline does before its loop."""
        self._of_shape(x)

    def _of_shape(self, x: Tensor) -> dict[str, Any]:
        key = (tuple(x.shape), x.device, x.dtype)
        if self._prepared[0] != key:
            self._prepared = key, self.adapter.prepare(self.spec, self.model, x)
        return self._prepared[1]

    def example_condition(
        self,
        latent_shape: tuple[int, int, int],
        batch: int,
        randn: Callable[..., Tensor],
        *,
        unconditional: bool,
    ) -> dict[str, Tensor]:
        """Random text embeddings and whatever else the class takes."""
        return self.adapter.condition(self.spec, self.model.config, batch, randn)

    def load(self, folder: str | Path) -> "PublicDenoiser":
        """Read weights of a local folder in diffusers' layout: transformer/, and transformer_2/ for
        a second expert.

        Raises ValueError, as `load_weights` does."""
        for i, expert in enumerate(self.experts):
            load_weights(
                expert, Path(folder) / ("transformer" if i == 0 else f"transformer_{i + 1}")
            )
        return self


def _of_frames(call: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """An image VAE on each frame.  (B, C, T, H, W) -> (B, C', T, H', W')."""
    return rearrange(
        call(rearrange(x, "b c t h w -> (b t) c h w")), "(b t) c h w -> b c t h w", t=x.shape[2]
    )


CHANNELS_LAST_ON = "cuda"
LTX_DECODE_TIME = 0.05  # decode_timestep of LTX 0.9.7's model card


class PublicVAE(nn.Module):
    """A public VAE: encode to mean and log-variance, decode to pixels."""

    def __init__(self, spec: DiffusersVAE):
        super().__init__()
        self.spec = spec
        self.model = _construct(spec)
        if spec.tile is not None:
            self.model.enable_tiling()
        if isinstance(
            self.model, (diffusers.AutoencoderKLAllegro, diffusers.AutoencoderKLHunyuanVideo15)
        ):
            # sample by sample: diffusers 0.42 raises on a batch of more than one
            self.model.enable_slicing()

    def encode(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, F, H, W) -> mean and log-variance, each (B, C_latent, T, H/s, W/s)."""
        if isinstance(self.model, diffusers.AutoencoderKL):
            moments = _of_frames(
                lambda x: self.model.encode(x, return_dict=False)[0].parameters, video
            )
            mean, logvar = moments.chunk(2, dim=1)
            return mean, logvar.clamp(-30.0, 20.0)  # as DiagonalGaussianDistribution does
        posterior = self.model.encode(video, return_dict=False)[0]
        return posterior.mean, posterior.logvar.expand_as(posterior.mean)

    def decode(self, latents: Tensor, frames: int | None = None) -> Tensor:
        """(B, C_latent, T, H, W) -> (B, 3, F, s H, s W)."""
        match self.model:
            case diffusers.AutoencoderKL():
                video = _of_frames(lambda x: self.model.decode(x, return_dict=False)[0], latents)
            case diffusers.AutoencoderKLAllegro():
                video = rearrange(
                    self.model.decode(latents, return_dict=False)[0], "b t c h w -> b c t h w"
                )
            case diffusers.AutoencoderKLLTXVideo() if self.model.config["timestep_conditioning"]:
                time = torch.full(
                    (latents.shape[0],), LTX_DECODE_TIME, device=latents.device, dtype=latents.dtype
                )
                video = self.model.decode(latents, time, return_dict=False)[0]
            case _:
                video = self.model.decode(latents, return_dict=False)[0]
        return video if frames is None else video[:, :, :frames]

    def load(self, folder: str | Path) -> "PublicVAE":
        """Read weights of a local folder in diffusers' layout: vae/.  Raises ValueError, as
        `load_weights` does."""
        load_weights(self.model, Path(folder) / "vae")
        return self


def _construct(spec: DiffusersDenoiser | DiffusersVAE) -> nn.Module:
    try:
        return getattr(diffusers, spec.diffusers)(**spec.config)
    except (AttributeError, TypeError) as error:
        raise ValueError(f"diffusers {diffusers.__version__}, {spec.diffusers}: {error}") from None


def holds_channels_last(module: nn.Module) -> bool:
    """Can activations stay channels last from end to end?  GroupNorm on CUDA makes its input
    contiguous, which the next convolution would turn back."""
    return not any(isinstance(m, nn.GroupNorm) for m in module.modules())


def lay_channels_last(module: nn.Module) -> None:
    """Lay the weights of 2D and 3D convolutions channels last: cuDNN's convolutions then give what
    they compute so too."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for submodule in module.modules():
        for name, p in submodule.named_parameters(recurse=False):
            if p.ndim in formats:
                laid = p.detach().contiguous(memory_format=formats[p.ndim])
                setattr(submodule, name, nn.Parameter(laid, requires_grad=p.requires_grad))


def build(
    spec: DiffusersDenoiser | DiffusersVAE, device: torch.device, dtype: torch.dtype
) -> nn.Module:
    """PublicDenoiser or PublicVAE with uninitialised parameters on `device`; on "meta" nothing is
    allocated."""
    kind = PublicDenoiser if isinstance(spec, DiffusersDenoiser) else PublicVAE
    module = lay_out(lambda: kind(spec), device, dtype)
    if kind is PublicVAE and device.type == CHANNELS_LAST_ON and holds_channels_last(module):
        lay_channels_last(module)
    return module
