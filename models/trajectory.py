"""A whole trajectory: denoiser with guidance, as the samplers of models.diffusion call it.

Shapes: B batch, C channels, T H W latents.
"""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from models.caching import CONDITIONAL, UNCONDITIONAL
from models.diffusion import sample
from models.spec import SamplerConfig


def evaluation_times(config: SamplerConfig) -> tuple[float, ...]:
    """t of each evaluation of the model, in order: found by running the sampler on one number."""
    times: list[float] = []

    def note(x: Tensor, t: Tensor) -> Tensor:
        times.append(t.item())
        return torch.zeros_like(x)

    sample(note, torch.zeros(1, 1, 1, 1, 1), config, torch.Generator().manual_seed(0))
    return tuple(times)


def step_of(index: int, config: SamplerConfig) -> int:
    """Which of the sampler's steps an evaluation belongs to: Heun's has two, but for a last one with one."""
    return index // 2 if config.sampler in ("heun", "flow-heun") else index


@dataclass
class Guided:
    """A denoiser with its condition, as a sampler calls it: (x, t) -> prediction.

    With `unconditional`, a second forward and classifier-free guidance (arXiv 2207.12598)."""

    denoiser: nn.Module
    condition: dict[str, Tensor]
    unconditional: dict[str, Tensor] | None
    scale: float
    times: tuple[float, ...] = ()
    """Of all evaluations to come, on the host: reading a tensor would wait for the device."""
    forwards: int = field(default=0, init=False)

    def begin(self, config: SamplerConfig, evaluations: tuple[float, ...] | None = None) -> "Guided":
        """Ready for a trajectory: this one's times, or those of them that fall to it.  A cache forgets the last one."""
        times = evaluation_times(config) if evaluations is None else evaluations
        cache = getattr(self.denoiser, "cache", None)
        if cache is not None:
            cache.begin(len(times))
        return replace(self, times=times)

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """x (B, C, T, H, W), t (B,) -> the same shape as x, a learned variance left out."""
        per_evaluation = 1 if self.unconditional is None else 2
        self.denoiser.at(self.times[self.forwards // per_evaluation])
        out = self._predict(x, t, self.condition, CONDITIONAL)
        if self.unconditional is None:
            return out
        base = self._predict(x, t, self.unconditional, UNCONDITIONAL)
        return base + self.scale * (out - base)

    def _predict(self, x: Tensor, t: Tensor, condition: dict[str, Tensor], branch: str) -> Tensor:
        self.forwards += 1
        cache = getattr(self.denoiser, "cache", None)
        if cache is None:
            return self.denoiser(x, t, **condition)[:, : x.shape[1]]
        with cache.branch(branch):
            return self.denoiser(x, t, **condition)[:, : x.shape[1]]


def denoise(model: Guided, noise: Tensor, config: SamplerConfig, generator: torch.Generator | None = None) -> Tensor:
    """Noise (B, C, T, H, W) -> latents, same shape."""
    return sample(model.begin(config), noise, config, generator)
