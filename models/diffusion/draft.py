"""Draft, then verify: a small model takes the early (or the late) steps of a trajectory, a large
one the others.

As T-Stitch (arXiv 2402.14167): early steps decide the layout, on which small and large models of
one family agree.  Wan 2.2's two experts share a trajectory in the same way, but are of one size.
Both models must mean the same by a latent: here that is their shape, with real weights also the VAE
and the noise path.

Shapes: B batch, C channels, T H W latents.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from models.caching.schedules import DraftConfig
from models.diffusion.samplers import sample
from models.diffusion.spec import SamplerConfig
from models.diffusion.trajectory import Guided, evaluation_times, step_of


@dataclass(frozen=True)
class Drafted:
    """A trajectory's latents, and the forwards each model ran."""

    latents: Tensor
    """(B, C, T, H, W)."""
    draft_forwards: int
    large_forwards: int

    def flops(self, draft_forward: int, large_forward: int) -> int:
        """Of the trajectory, from the counted FLOPs of one forward of each model."""
        return self.draft_forwards * draft_forward + self.large_forwards * large_forward


def drafted_evaluations(draft: DraftConfig, sampler: SamplerConfig) -> tuple[bool, ...]:
    """Does the draft make evaluation i?  A step's evaluations stay together."""
    of_step = draft.by_draft(sampler.steps)
    return tuple(of_step[step_of(i, sampler)] for i in range(len(evaluation_times(sampler))))


def denoise_drafted(
    draft: Guided,
    large: Guided,
    noise: Tensor,
    sampler: SamplerConfig,
    config: DraftConfig,
    generator: torch.Generator | None = None,
) -> Drafted:
    """Noise (B, C, T, H, W) -> latents of the same shape, by both models.

    Each may run under a cache (models.caching.cache), which then counts its own evaluations.
    Raises ValueError where the two do not give the same shape."""
    times, by_draft = evaluation_times(sampler), drafted_evaluations(config, sampler)
    of_draft = draft.begin(
        sampler, tuple(t for t, drafted in zip(times, by_draft, strict=True) if drafted)
    )
    of_large = large.begin(
        sampler, tuple(t for t, drafted in zip(times, by_draft, strict=True) if not drafted)
    )
    turns = iter(by_draft)

    def model(x: Tensor, t: Tensor) -> Tensor:
        out = (of_draft if next(turns) else of_large)(x, t)
        if out.shape != x.shape:
            raise ValueError(
                f"a model of the pair gives {tuple(out.shape)} for latents {tuple(x.shape)}: a"
                " draft must have the large model's channels"
            )
        return out

    latents = sample(model, noise, sampler, generator)
    return Drafted(latents, of_draft.forwards, of_large.forwards)
