"""Noise, paths and predictions.  Shapes: B batch, C channels, T H W latents.

Time runs from t = 0 (data) to t = 1 (noise), as everywhere in this project: x_t = alpha_t x_0 +
sigma_t noise.  SiT's paper (arXiv 2401.08740) counts the same way, its code the other way round.
DDPM's timestep k = 0..999 is t = (k + 1) / 1000, so that t = 0
is data itself.

The configs are `models.diffusion.spec.SamplerConfig` and `ObjectiveConfig`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from models.diffusion.spec import DDPM_STEPS, ObjectiveConfig, Path, Prediction

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
