"""Paths, predictions and samplers against a Gaussian, for which all of them have a closed form.

With data ~ N(M, C), x_t ~ N(alpha M, K) with K = alpha^2 C + sigma^2 I, so the score is -K^-1 (x -
alpha M), and since all K commute the ODE carries x_1 to M + C^1/2 K_1^-1/2 (x_1 - alpha_1 M).
Shapes: x (B, 2, 1, 1, 1), C (2, 2)."""

import math
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.diffusion.process import (
    EDGE,
    add_noise,
    coefficients,
    convert,
    diffusion_coefficient,
    draw_times,
    prediction_loss,
    target,
)
from models.diffusion.samplers import build_scheduler, sample
from models.spec import Diffusion, ObjectiveConfig, Path, Prediction, SamplerConfig

PATHS, PREDICTIONS, FORMS = get_args(Path), get_args(Prediction), get_args(Diffusion)
F64 = torch.float64
MEAN = torch.tensor([1.0, -0.5], dtype=F64)
COVARIANCE = torch.tensor([[0.8, 0.3], [0.3, 0.5]], dtype=F64)
VALUES, VECTORS = torch.linalg.eigh(COVARIANCE)
M = MEAN.view(1, 2, 1, 1, 1)


def config(
    sampler: str, steps: int, path: str, prediction: str = "velocity", **change
) -> SamplerConfig:
    own = {
        "sde": {"diffusion": "sigma", "diffusion_norm": 1.0, "last_step": 0.04},
        "ddim": {"eta": 0.0},
    }
    empty = {"diffusion": None, "diffusion_norm": None, "last_step": None, "eta": None}
    return SamplerConfig(
        **{
            **empty,
            **own.get(sampler, {}),
            "sampler": sampler,
            "steps": steps,
            "path": path,
            "prediction": prediction,
            **change,
        }
    )


def filtered(f: Tensor, x: Tensor) -> Tensor:
    """The matrix with the covariance's eigenvectors and eigenvalues f, times x."""
    return torch.einsum("ij,j,kj,bk...->bi...", VECTORS, f, VECTORS, x)


def gaussian(path: str, prediction: str):
    """The exact model: E[data | x_t], E[noise | x_t], and what follows from them."""

    def model(x: Tensor, t: Tensor) -> Tensor:
        c = coefficients(path, t, x.double())
        a, s = c.alpha[0].item(), c.sigma[0].item()
        off = filtered(1 / (a * a * VALUES + s * s), x.double() - a * M)
        data, noise = M + a * filtered(VALUES, off), s * off
        return {
            "data": data,
            "noise": noise,
            "score": -off,
            "velocity": c.d_alpha * data + c.d_sigma * noise,
        }[prediction].to(x.dtype)

    return model


def carried_by_the_ode(path: str, x: Tensor, t: float = 1.0) -> Tensor:
    """Where the probability flow brings x_t at t = 0: the consistency function of this target."""
    c = coefficients(path, torch.tensor([t]), x.double())
    a, s = c.alpha.item(), c.sigma.item()
    return M + filtered((VALUES / (a * a * VALUES + s * s)).sqrt(), x.double() - a * M)


def normal(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, 2, 1, 1, 1, generator=torch.Generator().manual_seed(seed), dtype=F64)


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


@pytest.mark.parametrize(
    ("form", "noise_end", "middle", "data_end"),
    [
        ("constant", 1, 1, 1),
        ("sigma", 1, 0.5, 0),
        ("linear", 1, 0.5, 0),
        ("decreasing", 1, 0.25, 0),
        ("increasing-decreasing", 0, 1, 0),
        ("sbdm", None, 2, 0),  # 2 t / (1 - t) on the linear path: infinite at the noise end
    ],
)
def test_diffusion_coefficients_by_their_formulas(form, noise_end, middle, data_end):
    """Every w keeps the marginals, so that samples cannot tell one form from another: values
    must."""
    for t, wanted in ((1.0, noise_end), (0.5, middle), (0.0, data_end)):
        if wanted is not None:
            at = torch.tensor([t], dtype=F64)
            assert diffusion_coefficient(form, 3.0, at, "linear", at).item() == pytest.approx(
                3.0 * wanted, abs=1e-12
            )


def test_sbdm_on_ddpms_path_is_its_beta():
    """w = beta(t) makes the SDE DDPM's own (arXiv 2011.13456): beta of a level is -1000 log(1 -
    beta_k)."""
    t = torch.tensor([0.4995], dtype=F64)  # inside level 500
    beta = 1e-4 + (0.02 - 1e-4) * 499 / 999
    assert diffusion_coefficient("sbdm", 1.0, t, "ddpm-linear", t).item() == pytest.approx(
        -1000 * math.log(1 - beta), rel=1e-3
    )


# --- paths
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
def test_paths_run_from_data_to_noise_and_derivatives_are_theirs(path):
    t = torch.linspace(0, 1, 1001, dtype=F64)
    c = coefficients(path, t, t)
    assert c.alpha[0] == 1
    assert c.sigma[0] == 0
    assert c.alpha[-1].item() == pytest.approx(0, abs=0.0064)  # ddpm-linear: sqrt(4.04e-5)
    assert c.sigma[-1].item() == pytest.approx(1, abs=3e-5)
    assert (c.alpha.diff() < 0).all()
    assert (c.sigma.diff() > 0).all()
    middle = (t[1:] + t[:-1])[50:-1] / 2  # between levels; sigma' is infinite at 0
    h = 1e-6
    m, low, high = (coefficients(path, u, middle) for u in (middle, middle - h, middle + h))
    torch.testing.assert_close(m.d_alpha, (high.alpha - low.alpha) / (2 * h), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(m.d_sigma, (high.sigma - low.sigma) / (2 * h), rtol=1e-4, atol=1e-6)
    assert (m.determinant > 0).all()


@pytest.mark.parametrize("path", ["gvp", "ddpm-linear", "ddpm-cosine"])
def test_variance_preserving_paths_preserve_variance(path):
    t = torch.linspace(0, 1, 777, dtype=F64)
    c = coefficients(path, t, t)
    torch.testing.assert_close(c.alpha**2 + c.sigma**2, torch.ones_like(t))


def test_ddpm_paths_are_the_schedulers_and_the_cosine_is_its_formula():
    levels = torch.arange(1, 1001) / 1000  # float32, as a model is asked
    for path in ("ddpm-linear", "ddpm-cosine"):
        bars = build_scheduler(config("ddpm", 10, path)).alphas_cumprod.double()
        torch.testing.assert_close(
            coefficients(path, levels, bars).alpha ** 2, bars, rtol=1e-4, atol=0
        )

    def cosine(t: float) -> float:  # arXiv 2102.09672, eq. 17
        return (
            math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
            / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
        )

    half = coefficients("ddpm-cosine", torch.tensor([0.5], dtype=F64), torch.zeros(1, dtype=F64))
    assert half.alpha.item() ** 2 == pytest.approx(cosine(0.5), rel=1e-4)
    linear = coefficients("ddpm-linear", torch.tensor([1.0], dtype=F64), torch.zeros(1, dtype=F64))
    betas = [1e-4 + (0.02 - 1e-4) * i / 999 for i in range(1000)]
    assert linear.alpha.item() ** 2 == pytest.approx(math.prod(1 - b for b in betas), rel=1e-4)


@settings(max_examples=60, deadline=None)
@given(
    path=st.sampled_from(PATHS),
    source=st.sampled_from(PREDICTIONS),
    to=st.sampled_from(PREDICTIONS),
    t=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**16),
)
def test_predictions_convert_into_each_other_and_back(path, source, to, t, seed):
    g = torch.Generator().manual_seed(seed)
    x0, noise = (torch.randn(3, 2, 1, 2, 2, generator=g, dtype=F64) for _ in range(2))
    times = torch.full((3,), t, dtype=F64)
    x = add_noise(x0, noise, times, path)
    given, wanted = (target(p, x0, noise, times, path) for p in (source, to))
    there = convert(given, x, times, path, source=source, to=to)
    torch.testing.assert_close(there, wanted, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        convert(there, x, times, path, source=to, to=source), given, rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("path", PATHS)
def test_exact_score_is_the_gradient_of_the_log_density(path):
    """Ties the closed form above to autograd, and velocity to score by the path's own algebra."""
    t = torch.full((5,), 0.37, dtype=F64)
    x = normal(5).requires_grad_()
    c = coefficients(path, t, x)
    a, s = c.alpha[0].item(), c.sigma[0].item()
    density = torch.distributions.MultivariateNormal(
        a * MEAN, a * a * COVARIANCE + s * s * torch.eye(2, dtype=F64)
    )
    (score,) = torch.autograd.grad(density.log_prob(x[:, :, 0, 0, 0]).sum(), x)
    torch.testing.assert_close(gaussian(path, "score")(x, t), score)
    torch.testing.assert_close(
        convert(gaussian(path, "velocity")(x, t), x, t, path, source="velocity", to="score"), score
    )


# --- training
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("path", PATHS)
def test_the_exact_model_minimises_every_loss(path, prediction):
    """The conditional mean beats itself shifted or scaled; a loss with a wrong target would not
    know."""
    g = torch.Generator().manual_seed(0)
    objective = ObjectiveConfig(path=path, prediction=prediction, times="uniform")
    noise, x0 = normal(4000, 1), M + filtered(VALUES.sqrt(), normal(4000, 2))
    t = torch.full((4000,), 0.2 + 0.6 * torch.rand(1, generator=g).item(), dtype=F64)
    exact = gaussian(path, prediction)
    best = prediction_loss(exact, x0, noise, t, objective)
    for worse in (
        lambda x, t: exact(x, t) + 0.2,
        lambda x, t: 0.8 * exact(x, t),
        lambda x, t: -exact(x, t),
    ):
        assert prediction_loss(worse, x0, noise, t, objective) > best


def test_score_loss_is_the_noise_loss():
    x0, noise, t = normal(50), normal(50, 1), torch.rand(50, dtype=F64) * 0.9 + 0.05
    losses = [
        prediction_loss(
            lambda x, t, p=p: convert(0.3 * x, x, t, "gvp", source="noise", to=p),
            x0,
            noise,
            t,
            ObjectiveConfig(path="gvp", prediction=p, times="uniform"),
        )
        for p in ("noise", "score")
    ]
    torch.testing.assert_close(*losses)


@pytest.mark.parametrize("times", ["uniform", "logit-normal"])
def test_training_times_keep_off_the_ends_and_have_their_spread(times):
    g, like = torch.Generator().manual_seed(0), torch.zeros(1)
    t = draw_times(
        ObjectiveConfig(path="linear", prediction="velocity", times=times), 20_000, g, like
    )
    assert t.min() >= EDGE
    assert t.max() <= 1 - EDGE
    assert t.mean().item() == pytest.approx(0.5, abs=0.01)
    assert t.std().item() == pytest.approx(
        {"uniform": 12**-0.5, "logit-normal": 0.208}[times], abs=0.005
    )
    levels = 1000 * draw_times(
        ObjectiveConfig(path="ddpm-linear", prediction="noise", times=times), 2000, g, like
    )
    torch.testing.assert_close(levels, levels.round(), atol=1e-3, rtol=0)
    assert levels.min() >= 1
    assert levels.max() <= 1000


# --- a user's mistakes
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sampler": "hein"}, "sampler 'hein': accepted are euler, heun, .*did you mean heun"),
        ({"path": "cosine"}, "path 'cosine': accepted are linear, gvp, .*did you mean ddpm-cosine"),
        ({"prediction": "epsilon"}, "prediction 'epsilon': accepted are velocity, noise"),
        ({"steps": 0}, "steps is 0"),
        ({"eta": 0.5}, "eta is 0.5: sampler euler takes none"),
        ({"sampler": "sde"}, "diffusion is None: sampler sde needs one"),
        (
            {"sampler": "sde", "diffusion": "sgima", "diffusion_norm": 1.0, "last_step": 0.04},
            "'sgima'.*did you mean sigma",
        ),
        (
            {"sampler": "sde", "diffusion": "sigma", "diffusion_norm": -1.0, "last_step": 0.04},
            "diffusion_norm -1.0",
        ),
        (
            {"sampler": "sde", "diffusion": "sigma", "diffusion_norm": 1.0, "last_step": 0.0},
            "last_step 0.0",
        ),
        ({"sampler": "ddpm"}, "path 'linear': sampler ddpm takes ddpm-linear, ddpm-cosine"),
        ({"sampler": "flow-heun", "path": "gvp"}, "path 'gvp': sampler flow-heun takes linear"),
        (
            {"sampler": "lcm", "path": "ddpm-linear", "steps": 9},
            "steps is 9: lcm takes 1 to 8; nearest: 8",
        ),
        (
            {"sampler": "ddim", "path": "ddpm-linear", "steps": 30, "eta": 0.0},
            "divisors of 1000; nearest: 25 or 40",
        ),
        ({"sampler": "ddpm", "path": "ddpm-linear", "steps": 1001}, "ddpm takes 1 to 1000"),
        ({"sampler": "ddim", "path": "ddpm-linear", "eta": 1.5}, "eta 1.5"),
    ],
)
def test_mistakes_are_named_in_one_line(change, message):
    with pytest.raises(ValueError, match=message) as caught:
        SamplerConfig(
            **{
                "sampler": "euler",
                "steps": 10,
                "path": "linear",
                "prediction": "velocity",
                "diffusion": None,
                "diffusion_norm": None,
                "last_step": None,
                "eta": None,
                **change,
            }
        )
    assert "\n" not in str(caught.value)
