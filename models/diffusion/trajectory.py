"""A whole trajectory: denoiser with guidance, as the samplers of models.diffusion.process call it.

Shapes: B batch, C channels, T H W latents.
"""

from contextlib import nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from models.caching.cache import CONDITIONAL, UNCONDITIONAL
from models.diffusion.samplers import sample
from models.diffusion.spec import SamplerConfig


def evaluation_times(config: SamplerConfig) -> tuple[float, ...]:
    """t of each evaluation of the model, in order: found by running the sampler on one number."""
    times: list[float] = []

    def note(x: Tensor, t: Tensor) -> Tensor:
        times.append(t.item())
        return torch.zeros_like(x)

    sample(note, torch.zeros(1, 1, 1, 1, 1), config, torch.Generator().manual_seed(0))
    return tuple(times)


def step_of(index: int, config: SamplerConfig) -> int:
    """Which of the sampler's steps an evaluation belongs to: Heun's has two, but for a last one
    with one."""
    return index // 2 if config.sampler in ("heun", "flow-heun") else index


def answer(
    denoiser: nn.Module,
    x: Tensor,
    t: Tensor,
    condition: dict[str, Tensor],
    unconditional: dict[str, Tensor] | None,
    scale: float,
    guidance: str = "sequential",
) -> Tensor:
    """What a denoiser says of x (B, C, T, H, W) at t (B,), a learned variance left out; the same
    shape.

    With `unconditional`, classifier-free guidance (arXiv 2207.12598), whose two answers come from
    two forwards (sequential), one of twice the batch (batched), or one of two packed requests
    (packed: own denoisers, batch 1); or from two ranks, whatever `guidance` says."""
    if unconditional is None:
        return predict(denoiser, x, t, condition, CONDITIONAL)
    branches = getattr(denoiser, "branches", None)
    if branches is not None:
        mine, name = (
            (condition, CONDITIONAL) if branches.conditional else (unconditional, UNCONDITIONAL)
        )
        wanted, base = branches.both(predict(denoiser, x, t, mine, name))
    elif guidance == "batched":
        both = {name: torch.cat([value, unconditional[name]]) for name, value in condition.items()}
        wanted, base = predict(
            denoiser, torch.cat([x, x]), torch.cat([t, t]), both, CONDITIONAL
        ).chunk(2)
    elif guidance == "packed":
        wanted, base = (
            out[:, : x.shape[1]]
            for out in denoiser.forward_packed(
                [x, x], torch.cat([t, t]), [condition, unconditional]
            )
        )
    else:
        wanted = predict(denoiser, x, t, condition, CONDITIONAL)
        base = predict(denoiser, x, t, unconditional, UNCONDITIONAL)
    return base + scale * (wanted - base)


def predict(
    denoiser: nn.Module, x: Tensor, t: Tensor, condition: dict[str, Tensor], branch: str
) -> Tensor:
    """One forward, under the denoiser's cache where it has one.

    A denoiser that replays CUDA graphs (`graphs`) overwrites its answer with the next replay, so
    that is copied."""
    cache, graphs = getattr(denoiser, "cache", None), getattr(denoiser, "graphs", False)
    if graphs:
        torch.compiler.cudagraph_mark_step_begin()
    with nullcontext() if cache is None else cache.branch(branch):
        out = denoiser(x, t, **condition)[:, : x.shape[1]]
    return out.clone() if graphs else out


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
    guidance: str = "sequential"
    """How the two answers of guidance are had; see `answer`."""
    forwards: int = field(default=0, init=False)
    """Of the workload's batch: batched and packed ones do the work of two."""

    def begin(
        self, config: SamplerConfig, evaluations: tuple[float, ...] | None = None
    ) -> "Guided":
        """Ready for a trajectory: this one's times, or those of them that fall to it.  A cache
        forgets the last one."""
        times = evaluation_times(config) if evaluations is None else evaluations
        cache = getattr(self.denoiser, "cache", None)
        if cache is not None:
            cache.begin(len(times))
        return replace(self, times=times)

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """x (B, C, T, H, W), t (B,) -> the same shape as x, a learned variance left out."""
        per_evaluation = 1 if self.unconditional is None else 2
        self.denoiser.at(self.times[self.forwards // per_evaluation])
        self.forwards += per_evaluation
        return answer(
            self.denoiser, x, t, self.condition, self.unconditional, self.scale, self.guidance
        )


def denoise(
    model: Guided, noise: Tensor, config: SamplerConfig, generator: torch.Generator | None = None
) -> Tensor:
    """Noise (B, C, T, H, W) -> latents, same shape."""
    return sample(model.begin(config), noise, config, generator)
