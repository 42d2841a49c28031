"""From noise to data: t runs from 1 down to 0.  Shapes: B batch, C channels, T H W latents.

diffusers' schedulers make the steps where they exist; the Euler and Heun integrators over any path
and the SDE are ours.  The config is `models.diffusion.spec.SamplerConfig`.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from models import draw
from models.diffusion.process import BETAS, EDGE, Model, convert, diffusion_coefficient
from models.diffusion.spec import DDPM_STEPS, Prediction, SamplerConfig


@torch.no_grad()
def sample(
    model: Model, noise: Tensor, config: SamplerConfig, generator: torch.Generator | None = None
) -> Tensor:
    """Noise (B, C, T, H, W) -> data, same shape.  `generator` feeds the stochastic samplers."""
    if config.sampler in ("ddim", "ddpm", "lcm"):
        return _sample_ddpm(model, noise, config, generator)
    if config.sampler in ("flow-euler", "flow-heun"):
        return _sample_flow(model, noise, config)
    if config.sampler == "sde":
        return _sample_sde(model, noise, config, generator)
    return _sample_ode(model, noise, config)


def _times(x: Tensor, t: float) -> Tensor:
    """t for each sample, in float32 at least: bfloat16 has 8 bits, too few for a thousand
    levels."""
    return torch.full(
        (x.shape[0],), t, device=x.device, dtype=torch.promote_types(x.dtype, torch.float32)
    )


def _grid(config: SamplerConfig) -> list[float]:
    """Times from noise to data, steps + 1 of them, evenly spaced.

    EDGE is cut off where the path is singular; the step from the last time above 0 then goes to the
    estimated data."""
    alpha_vanishes = config.path in ("linear", "gvp")
    divides_by_alpha = config.prediction in ("noise", "score") or config.diffusion == "sbdm"
    start = 1 - EDGE if alpha_vanishes and divides_by_alpha else 1.0
    if _regular_at_data(config):
        return torch.linspace(start, 0, config.steps + 1, dtype=torch.float64).tolist()
    return [
        *torch.linspace(
            start, config.last_step or EDGE, config.steps, dtype=torch.float64
        ).tolist(),
        0.0,
    ]


def _regular_at_data(config: SamplerConfig) -> bool:
    """Is what the sampler needs finite at t = 0?  On DDPM's paths sigma grows as sqrt(t), and with
    it the velocity."""
    return (
        config.path in ("linear", "gvp")
        and config.prediction == "velocity"
        and config.sampler != "sde"
    )


def _sample_ode(model: Model, x: Tensor, config: SamplerConfig) -> Tensor:
    """Probability-flow ODE dx/dt = v(x, t), by Euler or Heun (arXiv 2206.00364, algorithm 1)."""

    def velocity(x: Tensor, t: float) -> Tensor:
        at = _times(x, t)
        return convert(model(x, at), x, at, config.path, source=config.prediction, to="velocity")

    grid = _grid(config)
    for i in range(config.steps):
        now, after = grid[i], grid[i + 1]
        if i == config.steps - 1 and not _regular_at_data(config):
            return _estimate_data(model, x, now, config)
        v = velocity(x, now)
        if config.sampler == "heun":
            v = (v + velocity(x + (after - now) * v, after)) / 2
        x = x + (after - now) * v
    return x


def _sample_sde(
    model: Model, x: Tensor, config: SamplerConfig, generator: torch.Generator | None
) -> Tensor:
    """Reverse SDE by Euler-Maruyama, its last step to the estimated data (SiT)."""
    grid = _grid(config)
    for now, after in pairwise(grid[:-1]):
        t, h = _times(x, now), now - after
        value = model(x, t)
        score, velocity = (
            convert(value, x, t, config.path, source=config.prediction, to=to)
            for to in ("score", "velocity")
        )
        w = diffusion_coefficient(config.diffusion, config.diffusion_norm, t, config.path, x)
        kick = draw.normal(*x.shape, generator=generator, device=x.device, dtype=x.dtype)
        x = x - h * (velocity - w / 2 * score) + (w * h).sqrt() * kick
    return _estimate_data(model, x, grid[-2], config)


def _estimate_data(model: Model, x: Tensor, t: float, config: SamplerConfig) -> Tensor:
    at = _times(x, t)
    return convert(model(x, at), x, at, config.path, source=config.prediction, to="data")


def _sample_ddpm(
    model: Model, x: Tensor, config: SamplerConfig, generator: torch.Generator | None
) -> Tensor:
    """DDPM (arXiv 2006.11239), DDIM (2010.02502) and LCM (2310.04378) by diffusers' schedulers."""
    scheduler = build_scheduler(config)
    scheduler.set_timesteps(config.steps)
    kind: Prediction = "noise" if scheduler.config.prediction_type == "epsilon" else "data"
    extra: dict[str, Any] = {"eta": config.eta} if config.sampler == "ddim" else {}
    for k in scheduler.timesteps.tolist():
        t = _times(x, (k + 1) / DDPM_STEPS)
        value = convert(model(x, t), x, t, config.path, source=config.prediction, to=kind)
        # In float32 at least, in which the schedulers then draw their noise too: as in models.draw.
        wide = torch.promote_types(x.dtype, torch.float32)
        after = scheduler.step(
            value.to(wide), k, x.to(wide), generator=generator, return_dict=False, **extra
        )[0]
        x = after.to(x.dtype)
    return x


def _sample_flow(model: Model, x: Tensor, config: SamplerConfig) -> Tensor:
    """Flow matching on the linear path by diffusers' schedulers, whose sigma is this project's
    t."""
    scheduler = build_scheduler(config)
    if config.sampler == "flow-euler":
        # Its own spacing ends at sigma = 1/1000 before 0; even steps are what SiT and this
        # project's Euler take.
        scheduler.set_timesteps(sigmas=torch.linspace(1, 1 / config.steps, config.steps).tolist())
    else:
        scheduler.set_timesteps(config.steps)
    scheduler.set_begin_index(0)  # otherwise the step is looked up by equality of floats
    for sigma_1000 in scheduler.timesteps:
        # The edge again: on the linear path a noise cannot say what the data are at t = 1.
        t = _times(
            x,
            min(
                sigma_1000.item() / DDPM_STEPS,
                1.0 if config.prediction in ("velocity", "data") else 1 - EDGE,
            ),
        )
        value = convert(model(x, t), x, t, config.path, source=config.prediction, to="velocity")
        x = scheduler.step(value, sigma_1000, x, return_dict=False)[0]
    return x


def build_scheduler(config: SamplerConfig) -> Any:
    """The diffusers scheduler of a ddim, ddpm, lcm, flow-euler or flow-heun config."""
    import diffusers  # takes seconds to import; the own integrators do without

    if config.sampler == "flow-euler":
        return diffusers.FlowMatchEulerDiscreteScheduler(num_train_timesteps=DDPM_STEPS, shift=1.0)
    if config.sampler == "flow-heun":
        return diffusers.FlowMatchHeunDiscreteScheduler(num_train_timesteps=DDPM_STEPS, shift=1.0)
    scheduler = {
        "ddim": diffusers.DDIMScheduler,
        "ddpm": diffusers.DDPMScheduler,
        "lcm": diffusers.LCMScheduler,
    }
    # A velocity goes in as data, not as noise: at t = 1 the scheduler would divide the noise's
    # error by alpha again.
    kind = "epsilon" if config.prediction in ("noise", "score") else "sample"
    # Trailing: the first step starts from noise itself (arXiv 2305.08891).  LCM always does, and
    # knows no such option.
    spacing = {} if config.sampler == "lcm" else {"timestep_spacing": "trailing"}
    return scheduler[config.sampler](
        num_train_timesteps=DDPM_STEPS,
        clip_sample=False,
        prediction_type=kind,
        **BETAS[config.path],
        **spacing,
    )
