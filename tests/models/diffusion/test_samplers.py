"""Samplers against a Gaussian: moments, order of convergence, agreement."""

import math
from typing import get_args

import pytest
import torch
from torch import Tensor

from models.diffusion.process import (
    EDGE,
    coefficients,
)
from models.diffusion.samplers import sample
from models.spec import Diffusion, Path, Prediction, SamplerConfig
from support.models.diffusion import (
    COVARIANCE,
    MEAN,
    VALUES,
    M,
    config,
    filtered,
    gaussian,
    normal,
)

PATHS, PREDICTIONS, FORMS = get_args(Path), get_args(Prediction), get_args(Diffusion)


F64 = torch.float64


def carried_by_the_ode(path: str, x: Tensor, t: float = 1.0) -> Tensor:
    """Where the probability flow brings x_t at t = 0: the consistency function of this target."""
    c = coefficients(path, torch.tensor([t]), x.double())
    a, s = c.alpha.item(), c.sigma.item()
    return M + filtered((VALUES / (a * a * VALUES + s * s)).sqrt(), x.double() - a * M)


def coarse_error(samples: Tensor, bias: float) -> None:
    """Mean and covariance within four standard errors and the sampler's stated bias at these
    steps."""
    x = samples.double()[:, :, 0, 0, 0]
    n, d = x.shape[0], COVARIANCE.diagonal()
    mean_error = (d / n).sqrt()
    covariance_error = (
        (d[:, None] * d + COVARIANCE**2) / n
    ).sqrt()  # of a Gaussian's sample covariance
    assert ((x.mean(0) - MEAN).abs() < 4 * mean_error + bias).all(), x.mean(0) - MEAN
    assert ((torch.cov(x.T) - COVARIANCE).abs() < 4 * covariance_error + bias).all(), (
        torch.cov(x.T) - COVARIANCE
    )


# Bias: what discretisation leaves at these steps, each about twice the value measured.
SAMPLERS = [
    *((config("euler", 100, path), 0.03) for path in PATHS),
    *((config("heun", 50, path), 0.02 if path == "ddpm-cosine" else 0.005) for path in PATHS),
    *(
        (config("euler", 100, path, p), 0.03)
        for path in ("linear", "gvp")
        for p in ("noise", "score", "data")
    ),
    *(
        (config("sde", 100, path, diffusion=form), 0.02)
        for path in ("linear", "gvp", "ddpm-linear")
        for form in FORMS
    ),
    (config("sde", 100, "linear", "score", diffusion_norm=3.0), 0.02),
    (config("ddim", 250, "ddpm-linear"), 0.03),
    (config("ddim", 250, "ddpm-cosine", "noise"), 0.02),
    (config("ddim", 250, "ddpm-linear", eta=1.0), 0.02),
    (config("ddpm", 250, "ddpm-linear", "noise"), 0.02),
    (config("ddpm", 250, "ddpm-cosine", "data"), 0.02),
    (config("flow-euler", 100, "linear"), 0.03),
    (config("flow-euler", 100, "linear", "noise"), 0.03),
    (config("flow-heun", 50, "linear"), 0.005),
    (config("flow-heun", 50, "linear", "score"), 0.005),
]


def name(value: object) -> str | None:
    if not isinstance(value, SamplerConfig):
        return None
    own = [value.sampler, value.path, value.prediction, value.diffusion, value.eta and "eta"]
    return "-".join(str(part) for part in own if part)


@pytest.mark.parametrize(("sampler", "bias"), SAMPLERS, ids=name)
def test_samples_have_the_targets_mean_and_covariance(sampler, bias):
    model = gaussian(sampler.path, sampler.prediction)
    coarse_error(sample(model, normal(8192), sampler, torch.Generator().manual_seed(1)), bias)


@pytest.mark.parametrize("path", ["ddpm-linear", "ddpm-cosine"])
@pytest.mark.parametrize("steps", range(1, 9))
def test_lcm_with_the_exact_consistency_function_samples_the_target(steps, path):
    """A consistency model answers where the ODE ends, not the mean of the data; of the Gaussian it
    is known."""
    noise = normal(8192)
    calls = []

    def model(x: Tensor, t: Tensor) -> Tensor:
        calls.append(t[0].item())
        return carried_by_the_ode(path, x, t[0].item())

    samples = sample(
        model, noise, config("lcm", steps, path, "data"), torch.Generator().manual_seed(1)
    )
    assert samples.shape == noise.shape
    assert len(calls) == steps
    assert calls[0] == pytest.approx(1.0)
    assert calls == sorted(calls, reverse=True)
    coarse_error(samples, 0.005)


def slope(sampler: str, path: str, steps: tuple[int, ...]) -> float:
    """Order of convergence: least squares of log error over log step, against the exact end of the
    ODE."""
    x = normal(64)
    exact = carried_by_the_ode(path, x)
    errors = [
        (sample(gaussian(path, "velocity"), x, config(sampler, n, path)) - exact).abs().max().item()
        for n in steps
    ]
    h, e = (
        torch.tensor([math.log(v) for v in values], dtype=F64)
        for values in ([1 / n for n in steps], errors)
    )
    return (((h - h.mean()) * (e - e.mean())).sum() / (h - h.mean()).square().sum()).item()


@pytest.mark.parametrize(
    ("sampler", "path", "steps", "order"),
    [
        ("euler", "linear", (16, 32, 64, 128), 1),
        ("euler", "gvp", (16, 32, 64, 128), 1),
        ("euler", "ddpm-linear", (16, 32, 64, 128), 1),
        ("heun", "linear", (16, 32, 64, 128), 2),
        ("heun", "gvp", (16, 32, 64, 128), 2),
        ("ddim", "ddpm-linear", (40, 125, 250, 500), 1),
        ("ddim", "ddpm-cosine", (40, 125, 250, 500), 1),
        # flow-heun's last step, from sigma = 1/1000, is first order and leaves 3e-6: coarse steps
        # show the rest.
        ("flow-euler", "linear", (16, 32, 64, 128), 1),
        ("flow-heun", "linear", (10, 20, 40, 80), 2),
    ],
)
def test_order_of_convergence(sampler, path, steps, order):
    assert slope(sampler, path, steps) == pytest.approx(order, abs=0.15)


def test_samplers_that_must_agree_do():
    x, velocity = normal(64), gaussian("linear", "velocity")
    torch.testing.assert_close(
        sample(velocity, x.float(), config("flow-euler", 20, "linear")),
        sample(velocity, x.float(), config("euler", 20, "linear")),
        atol=1e-5,
        rtol=1e-5,
    )
    # Without noise the SDE is the ODE, up to its last step's length.
    still = config("sde", 400, "linear", diffusion_norm=0.0, last_step=0.0025)
    torch.testing.assert_close(
        sample(velocity, x, still),
        sample(velocity, x, config("euler", 400, "linear")),
        atol=1e-3,
        rtol=0,
    )
    # DDIM with eta 1 is ancestral DDPM (arXiv 2010.02502).
    model = gaussian("ddpm-linear", "noise")
    torch.testing.assert_close(
        *(
            sample(
                model,
                x,
                config(s, 50, "ddpm-linear", "noise", **more),
                torch.Generator().manual_seed(3),
            )
            for s, more in (("ddim", {"eta": 1.0}), ("ddpm", {}))
        ),
        atol=1e-4,
        rtol=1e-4,
    )


@pytest.mark.parametrize(
    "sampler",
    [
        config("sde", 20, "linear"),
        config("ddpm", 20, "ddpm-linear"),
        config("lcm", 4, "ddpm-linear"),
        config("ddim", 20, "ddpm-linear", eta=1.0),
    ],
    ids=name,
)
def test_stochastic_samplers_repeat_by_seed(sampler):
    def run(seed: int) -> Tensor:
        return sample(
            gaussian(sampler.path, "velocity"),
            normal(4),
            sampler,
            torch.Generator().manual_seed(seed),
        )

    assert torch.equal(run(0), run(0))
    assert not torch.equal(run(0), run(1))


def test_model_is_called_as_the_steps_say_and_shape_is_kept():
    x = torch.randn(2, 3, 2, 4, 5)
    for sampler, calls in (
        (config("euler", 7, "linear"), 7),
        (config("heun", 7, "linear"), 14),
        (config("heun", 7, "gvp", "data"), 13),
        (config("sde", 7, "gvp"), 7),
        (config("ddim", 8, "ddpm-cosine"), 8),
        (config("ddpm", 7, "ddpm-linear"), 7),
        (config("flow-euler", 7, "linear"), 7),
        (config("flow-heun", 7, "linear"), 13),
        (config("euler", 1, "gvp", "noise"), 1),
        (config("sde", 1, "linear"), 1),
    ):
        times = []

        def model(x: Tensor, t: Tensor, times: list[float] = times) -> Tensor:
            assert t.shape == (2,)
            times.append(t[0].item())
            return 0.1 * x

        out = sample(model, x, sampler)
        assert out.shape == x.shape
        assert out.dtype == x.dtype
        assert out.isfinite().all()
        assert len(times) == calls, sampler
        assert min(times) >= 0
        # From pure noise: diffusers' default spacing of DDIM and DDPM would start below it.
        assert max(times) == pytest.approx(
            1 - EDGE if sampler.prediction == "noise" else 1.0, abs=1e-6
        )


def test_half_precision_stays_half():
    x = torch.randn(2, 3, 1, 4, 4).bfloat16()
    for sampler in (
        config("euler", 3, "gvp"),
        config("sde", 3, "linear"),
        config("flow-heun", 3, "linear"),
    ):
        assert sample(lambda x, t: 0.1 * x, x, sampler).dtype == torch.bfloat16
