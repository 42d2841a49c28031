"""Paths, predictions and losses against a Gaussian, for which all of them have a closed form."""

import math
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

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
from models.diffusion.samplers import build_scheduler
from models.spec import Diffusion, ObjectiveConfig, Path, Prediction, SamplerConfig
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
