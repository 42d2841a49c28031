"""Noise, paths, predictions and samplers.  Shapes: B batch, C channels, T H W latents.

Time runs from t = 0 (data) to t = 1 (noise), as everywhere in this project: x_t = alpha_t x_0 +
sigma_t noise.  SiT's paper (arXiv 2401.08740) counts the same way, its code the other way round.
Samplers integrate from 1 down to 0. DDPM's timestep k = 0..999 is t = (k + 1) / 1000, so that t = 0
is data itself.

diffusers' schedulers make the steps where they exist; the Euler and Heun integrators over any path
and the SDE are ours. The configs are `models.spec.SamplerConfig` and `ObjectiveConfig`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from models import draw
from models.spec import DDPM_STEPS, ObjectiveConfig, Path, Prediction, SamplerConfig

Model = Callable[[Tensor, Tensor], Tensor]
"""(x (B, C, T, H, W), t (B,)) -> the configured prediction, same shape as x."""

EDGE = 1e-3
"""Distance kept from t = 0 or 1 where a conversion divides by sigma = 0 or alpha = 0 (SiT's
sample_eps)."""
BETAS = {
    "ddpm-linear": {
        "beta_schedule": "linear",
        "beta_start": 1e-4,
        "beta_end": 0.02,
    },  # arXiv 2006.11239
    "ddpm-cosine": {"beta_schedule": "squaredcos_cap_v2"},
}  # arXiv 2102.09672


@dataclass(frozen=True)
class Coefficients:
    """alpha, sigma and their derivatives in t, each (B, 1, ..., 1) to multiply latents."""

    alpha: Tensor
    sigma: Tensor
    d_alpha: Tensor
    d_sigma: Tensor

    @property
    def determinant(self) -> Tensor:
        """alpha sigma' - alpha' sigma, positive on every path: (x, velocity) determine (data,
        noise)."""
        return self.alpha * self.d_sigma - self.d_alpha * self.sigma


def coefficients(path: Path, t: Tensor, like: Tensor) -> Coefficients:
    """The path at t (B,), shaped to multiply `like` (B, ...) and in its dtype; computed in
    float64."""
    u = t.double()
    if path == "linear":
        values = 1 - u, u, -torch.ones_like(u), torch.ones_like(u)
    elif path == "gvp":  # generalised variance preserving
        angle = u * math.pi / 2
        values = angle.cos(), angle.sin(), -math.pi / 2 * angle.sin(), math.pi / 2 * angle.cos()
    else:
        # log alpha^2 is linear between the levels of the schedule, so alpha and its derivative
        # exist for every t.
        table = log_alpha_bars(path).to(u.device)  # (1001,), at t = k / 1000
        k = (
            (u * DDPM_STEPS - 1e-3).ceil().long().clamp(1, DDPM_STEPS)
        )  # a level in float32 may lie above itself
        slope = (table[k] - table[k - 1]) * DDPM_STEPS
        log_bar = table[k - 1] + slope * (u - (k - 1) / DDPM_STEPS)
        alpha, sigma = (0.5 * log_bar).exp(), (-torch.expm1(log_bar)).sqrt()
        d_alpha = 0.5 * slope * alpha
        values = alpha, sigma, d_alpha, -alpha * d_alpha / sigma  # from alpha^2 + sigma^2 = 1
    shape = (-1, *([1] * (like.ndim - 1)))
    return Coefficients(*(v.reshape(shape).to(like.dtype) for v in values))


@cache
def log_alpha_bars(path: str) -> Tensor:
    """log of DDPM's cumulative product of 1 - beta, with level 0 (data) in front.  -> (1001,)
    float64."""
    from diffusers import DDPMScheduler  # takes seconds to import; the interpolants do without

    bars = DDPMScheduler(num_train_timesteps=DDPM_STEPS, **BETAS[path]).alphas_cumprod.double()
    return torch.cat([bars.new_zeros(1), bars.log()])


def add_noise(x0: Tensor, noise: Tensor, t: Tensor, path: Path) -> Tensor:
    """x_t = alpha x_0 + sigma noise.  x0 and noise (B, C, T, H, W), t (B,) -> same as x0."""
    c = coefficients(path, t, x0)
    return c.alpha * x0 + c.sigma * noise


def target(prediction: Prediction, x0: Tensor, noise: Tensor, t: Tensor, path: Path) -> Tensor:
    """What a model of this prediction should answer for one pair of data and noise.  Same shape as
    x0."""
    if prediction == "data":
        return x0
    if prediction == "noise":
        return noise
    c = coefficients(path, t, x0)
    return c.d_alpha * x0 + c.d_sigma * noise if prediction == "velocity" else -noise / c.sigma


def data_and_noise(
    prediction: Prediction, value: Tensor, x: Tensor, c: Coefficients
) -> tuple[Tensor, Tensor]:
    """Any prediction at x -> estimates of (data, noise), the pair that every other prediction
    follows from.

    Divides by alpha (noise, score) or sigma (data) and so is singular at one end of some paths."""
    if prediction == "velocity":  # solve x = alpha d + sigma n, v = alpha' d + sigma' n
        return (
            (c.d_sigma * x - c.sigma * value) / c.determinant,
            (c.alpha * value - c.d_alpha * x) / c.determinant,
        )
    if prediction == "data":
        return value, (x - c.alpha * value) / c.sigma
    noise = value if prediction == "noise" else -c.sigma * value  # score = -noise / sigma
    return (x - c.sigma * noise) / c.alpha, noise


def convert(
    value: Tensor, x: Tensor, t: Tensor, path: Path, *, source: Prediction, to: Prediction
) -> Tensor:
    """One prediction as another, at x (B, C, T, H, W) and t (B,)."""
    if source == to:
        return value
    c = coefficients(path, t, x)
    if {source, to} == {
        "noise",
        "score",
    }:  # needs no data, whose estimate is singular where alpha = 0
        return -value / c.sigma if to == "score" else -c.sigma * value
    data, noise = data_and_noise(source, value, x, c)
    return target(to, data, noise, t, path)


def diffusion_coefficient(form: str, norm: float, t: Tensor, path: Path, like: Tensor) -> Tensor:
    """w(t) of dx = (v - w/2 score) dt + sqrt(w) dW, run backwards (SiT), as (B, 1, ...).

    Any w >= 0 leaves the marginals as they are.  SiT's code names w/2 its diffusion; the forms here
    are w itself."""
    c = coefficients(path, t, like)
    u = t.reshape(c.alpha.shape).to(like.dtype)
    return (
        norm
        * {
            "constant": lambda: torch.ones_like(u),
            "sbdm": lambda: (
                2 * c.sigma * c.determinant / c.alpha
            ),  # = 2 (sigma sigma' - sigma^2 alpha'/alpha)
            "sigma": lambda: c.sigma,
            "linear": lambda: u,
            "decreasing": lambda: 0.25 * (1 - (math.pi * u).cos()) ** 2,  # towards the data
            "increasing-decreasing": lambda: (math.pi * u).sin() ** 2,
        }[form]()
    )


def draw_times(
    objective: ObjectiveConfig, batch: int, generator: torch.Generator | None, like: Tensor
) -> Tensor:
    """Random t (B,), float32, kept off the ends by EDGE.  DDPM's paths get whole levels, as their
    models know."""
    if objective.times == "uniform":
        u = torch.rand(batch, generator=generator, device=like.device)
    else:
        u = torch.randn(batch, generator=generator, device=like.device).sigmoid()
    if objective.path in BETAS:
        return ((u * DDPM_STEPS).floor().clamp(max=DDPM_STEPS - 1) + 1) / DDPM_STEPS
    return EDGE + (1 - 2 * EDGE) * u


def prediction_loss(
    model: Model, x0: Tensor, noise: Tensor, t: Tensor, objective: ObjectiveConfig
) -> Tensor:
    """Mean squared error of the model's prediction, a scalar: DDPM's simple loss (noise), SiT's
    (velocity), ...

    The score's error is weighted by sigma^2, which makes it the noise's (arXiv 2011.13456, eq.
    7)."""
    x = add_noise(x0, noise, t, objective.path)
    error = model(x, t) - target(objective.prediction, x0, noise, t, objective.path)
    if objective.prediction == "score":
        error = error * coefficients(objective.path, t, x0).sigma
    return error.square().mean()


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
