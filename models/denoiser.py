"""What own and public denoisers share: a forward that a cache or a CUDA graph may answer."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


class Denoiser(nn.Module):
    """forward(x, t, **condition): `compute`, or whatever was put `through` it.

    x (B, C, T, H, W) latents, t (B,) in [0, 1] -> (B, C_out, T, H, W)."""

    through: Callable[..., Tensor] | None = None
    """Takes the arguments of `compute` and answers in its place."""
    cache: Any = None
    """The models.caching.cache.Cache that it runs under."""
    branches: Any = None
    """The models.parallel.guidance.Branches that share its guided steps."""

    def forward(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        answer = self.compute if self.through is None else self.through
        return answer(x, t, **condition)

    blocks_end = "blocks"
    """How the names of its lists of repeated blocks end."""

    def at(self, t: float) -> None:
        """Choose the weights for time t in [0, 1] (1 is noise); one set serves every time here."""

    def prepare(self, x: Tensor) -> None:
        """Compute what depends on the shape of x alone, as a denoising loop does once."""

    def compute(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        """The model itself."""
        raise NotImplementedError


def blocks_of(denoiser: nn.Module) -> list[nn.Module]:
    """The repeated blocks of a denoiser, each list's members."""
    ending = getattr(denoiser, "blocks_end", "blocks")
    return [
        block
        for name, module in denoiser.named_modules()
        if isinstance(module, nn.ModuleList) and name.rpartition(".")[2].endswith(ending)
        for block in module
    ]
