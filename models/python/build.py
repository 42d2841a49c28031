"""Parts that users' classes build, called as own ones are.

An adapter is an object (a class, an instance or a module's namespace) with the functions that the
class itself lacks:

    denoiser:      example_inputs(model, latent_shape, batch, randn, unconditional) -> {name: x}
                   forward(model, x, t, **inputs) -> tensor of x's shape
    VAE:           encode(model, video) -> (mean, log-variance), or the mean alone
                   decode(model, latents) -> video
    text encoder:  forward(model, embeddings) -> tensor

Without an adapter, or where it lacks a function, the class's own method of that name is called.
"""

import difflib
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from models.denoiser import Denoiser
from models.lay_out import lay_out
from models.python.imports import import_part
from models.python.spec import PythonDenoiser, PythonPart, PythonTextEncoder, PythonVAE


class OwnClassDenoiser(Denoiser):
    """A user's denoiser."""

    def __init__(self, spec: PythonDenoiser):
        super().__init__()
        self.spec, self.blocks_end = spec, spec.blocks
        self.model, adapter = _construct(spec)
        self.call = _function(adapter, self.model, "forward")
        self.inputs = _function(adapter, self.model, "example_inputs", missing=_no_inputs)
        if self.inputs is _no_inputs:
            _check_takes_nothing_more(self.model, spec)

    def compute(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        """x (B, C, T, H, W), t (B,) in [0, 1] (1 is noise) -> (B, >= C, T, H, W)."""
        out = self.call(x, t, **condition)
        if out.ndim != 5 or out.shape[2:] != x.shape[2:] or out.shape[1] < x.shape[1]:
            raise ValueError(f"forward gives {tuple(out.shape)} for latents {tuple(x.shape)}")
        return out

    def example_condition(
        self,
        latent_shape: tuple[int, int, int],
        batch: int,
        randn: Callable[..., Tensor],
        *,
        unconditional: bool,
    ) -> dict[str, Tensor]:
        """What the class takes beside latents and time."""
        return self.inputs(latent_shape, batch, randn, unconditional)


class OwnClassVAE(nn.Module):
    """A user's VAE."""

    def __init__(self, spec: PythonVAE):
        super().__init__()
        self.spec = spec
        self.model, adapter = _construct(spec)
        self.of_video = _function(adapter, self.model, "encode")
        self.of_latents = _function(adapter, self.model, "decode")

    def encode(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, F, H, W) -> mean and log-variance, each (B, C_latent, T, H/s, W/s)."""
        out = self.of_video(video)
        return out if isinstance(out, tuple) else (out, torch.zeros_like(out))

    def decode(self, latents: Tensor, frames: int | None = None) -> Tensor:
        """(B, C_latent, T, H, W) -> (B, 3, F, s H, s W)."""
        video = self.of_latents(latents)
        return video if frames is None else video[:, :, :frames]


class OwnClassTextEncoder(nn.Module):
    """A user's text encoder."""

    def __init__(self, spec: PythonTextEncoder):
        super().__init__()
        self.config = spec
        self.model, adapter = _construct(spec)
        self.call = _function(adapter, self.model, "forward")

    def forward(self, x: Tensor) -> Tensor:
        """x (B, L, D) embeddings -> what the class gives."""
        return self.call(x)


WRAPPERS: dict[type, type[nn.Module]] = {
    PythonDenoiser: OwnClassDenoiser,
    PythonVAE: OwnClassVAE,
    PythonTextEncoder: OwnClassTextEncoder,
}


def build(spec: PythonPart, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """The part with uninitialised parameters on `device`; on "meta" nothing is allocated.

    Raises as models.python.imports.import_part, TypeError for what is no nn.Module, and whatever
    the class raises."""
    return lay_out(lambda: WRAPPERS[type(spec)](spec), device, dtype)


def _construct(spec: PythonPart) -> tuple[nn.Module, Any]:
    made, adapter = import_part(spec)
    model = made(**spec.config)
    if not isinstance(model, nn.Module):
        raise TypeError(f"{spec.python} gives {type(model).__name__}, not a torch.nn.Module")
    return model, adapter


def _function(
    adapter: Any, model: nn.Module, name: str, missing: Callable[..., Any] | None = None
) -> Callable[..., Any]:
    """The adapter's function with the model, else the model's own method."""
    adapter = adapter() if isinstance(adapter, type) else adapter
    given = getattr(adapter, name, None)
    if given is not None:
        return partial(given, model)
    _check_not_misspelt(adapter, name)
    if name == "forward":
        return model  # with its hooks
    own = getattr(model, name, missing)
    if own is None:
        raise TypeError(f"{type(model).__name__} has no {name}(), and its adapter has none")
    return own


def _check_not_misspelt(adapter: Any, name: str) -> None:
    """Raises TypeError where an adapter has `foward`: it would be passed over in silence."""
    has = [known for known in vars(adapter or object) if not known.startswith("_")]
    for near in difflib.get_close_matches(name, has, n=1, cutoff=0.8):
        raise TypeError(f"the adapter has {near}(), and no {name}(): is that a misspelling?")


def _check_takes_nothing_more(model: nn.Module, spec: PythonPart) -> None:
    """Raises TypeError where the class takes more than latents and time, and nothing gives it."""
    needed = [
        p.name
        for p in inspect.signature(model.forward).parameters.values()
        if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    if len(needed) > 2:
        raise TypeError(
            f"{type(model).__name__}.forward takes {', '.join(needed[2:])} too: write"
            f" example_inputs(...) in {spec.adapter or 'an adapter'}, which gives them"
        )


def _no_inputs(*_: Any, **__: Any) -> dict[str, Tensor]:
    return {}
