"""The choice of points: slopes by hand, the budget, and that a plan is worth more than a
sweep without one."""

import json
from itertools import pairwise

import numpy as np
import pytest

from bench.calibrate.cost.parameters import NAMES, PARAMETERS, PRIOR, RATES
from bench.calibrate.cost.seconds import Priced
from bench.calibrate.design import (
    Candidate,
    at_random,
    choose,
    prior_precision,
    sigma_of,
)
from bench.calibrate.fit import Observation, fit
from support.calibrations import BARE, CEILINGS, operators, work


def test_slopes_by_hand():
    """A copy's seconds fall as its efficiency rises; twelve launches take 12 kernel_s beside it."""
    row = operators(("memory", 0, 0, 0, 0, 2 * 10**6, 0, 12))
    theta = PRIOR.copy()
    theta[NAMES.index("call_s")] = 1e-12
    j = Priced([row], BARE).slopes(theta)[0]
    copy_s, launch_s = (
        12 * 2e6 / 2e12 / PRIOR[NAMES.index("memory_efficiency")],
        12 * PRIOR[NAMES.index("kernel_s")],
    )
    assert j[NAMES.index("memory_efficiency")] == pytest.approx(
        -copy_s / (copy_s + launch_s), rel=1e-4
    )
    assert j[NAMES.index("kernel_s")] == pytest.approx(launch_s / (copy_s + launch_s), rel=1e-4)
    assert j[NAMES.index("linear_efficiency")] == 0.0


def test_before_any_point_the_prior_speaks():
    row = operators(("memory", 0, 0, 0, 0, 10**15, 0, 1))
    sigma = sigma_of(Priced([row], BARE).slopes(PRIOR)[0], prior_precision())
    assert sigma == pytest.approx(PARAMETERS["memory_efficiency"].spread, rel=1e-3)


def candidates(rng, n: int = 30) -> list[Candidate]:
    """Transformers, some with a decoder; a measurement takes ten of its steps and a second."""
    made = [work(rng, conv=i % 5 == 0)[0] for i in range(n)]
    return [
        Candidate(f"c{i}", (m,), 1.0 + 10 * float(Priced([m], CEILINGS).seconds(PRIOR)[0]))
        for i, m in enumerate(made)
    ]


def test_the_budget_is_kept_and_every_rate_is_told_first():
    rng = np.random.default_rng(3)
    pool, wanted = candidates(rng), work(rng, conv=True)[0]
    chosen, before = choose(pool, [wanted], PRIOR, CEILINGS, budget_s=20.0)
    assert chosen[-1].spent_s <= 20.0
    assert len({c.index for c in chosen}) == len(chosen)
    sigmas = [before, *(c.sigma for c in chosen)]
    assert all(a >= b for a, b in pairwise(sigmas))
    told = frozenset().union(
        *(pool[chosen[0].index].works[0].classes, pool[chosen[1].index].works[0].classes)
    )
    assert {PARAMETERS[name].needs for name in RATES} & wanted.classes <= told
    assert choose(pool, [wanted], PRIOR, CEILINGS, budget_s=0.5) == ([], before)


def test_a_plan_predicts_better_than_a_sweep_of_the_same_time():
    """Truths drawn around the priors, both ways measured with 3 % noise and fitted: mean error of
    the wanted prediction."""
    errors = {"plan": [], "sweep": []}
    for seed in range(10):
        rng = np.random.default_rng(seed)
        pool, wanted = candidates(rng), work(rng, conv=True)[0]
        truth = PRIOR * np.exp(
            0.7
            * np.array([m.spread for m in PARAMETERS.values()])
            * rng.standard_normal(len(PRIOR))
        )
        truth = np.clip(
            truth, [m.low for m in PARAMETERS.values()], [m.high for m in PARAMETERS.values()]
        )
        goal = Priced([wanted], CEILINGS).seconds(truth)[0]
        chosen, _ = choose(pool, [wanted], PRIOR, CEILINGS, budget_s=12.0)
        for way, picked in (
            ("plan", [c.index for c in chosen]),
            ("sweep", at_random(pool, 12.0, rng)),
        ):
            measured = [
                Observation(
                    pool[i].label,
                    "denoise_step",
                    pool[i].works[0],
                    float(
                        Priced(pool[i].works, CEILINGS).seconds(truth)[0]
                        * np.exp(0.03 * rng.standard_normal())
                    ),
                    1,
                )
                for i in picked
            ]
            if len(measured) > len(RATES):
                predicted = fit(measured, CEILINGS).predict([wanted])[0]
            else:  # too few to fit anything: what was believed before
                predicted = Priced([wanted], CEILINGS).seconds(PRIOR)[0]
            errors[way].append(abs(np.log(predicted / goal)))
    assert np.mean(errors["plan"]) < 0.7 * np.mean(errors["sweep"]), {
        k: np.mean(v) for k, v in errors.items()
    }


def test_plan_writes_a_suite_that_loads(here, tmp_path, micro_suite):
    from bench.core.load import load, suite_points
    from bench.core.specs.suite import Suite

    path = tmp_path / "planned.yaml"
    code, out, _ = here(
        "run",
        str(micro_suite),
        "--choose-for",
        "sora-3b",
        "-w",
        "image-512",
        "--gpu",
        "h100-sxm",
        "--recipe",
        "eager",
        "--set",
        "recipe.dtype=fp32",
        "--budget",
        "1m",
        "--write",
        str(path),
        "--json",
    )
    document = json.loads(out)
    assert code == 0
    assert document["sigma_after"] < document["sigma_before"]
    assert document["points"][-1]["spent_s"] <= 60
    assert len(suite_points(load(Suite, str(path)))) == len(document["points"])


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["calibrate-cpu", "--budget", "soon"], "soon"),
        (
            ["calibrate-cpu", "--recipe", "eager"],
            "--recipe eager-bf16: suite calibrate-cpu has no point of it; it has eager-fp32",
        ),
        (["calibrate-cpu", "--gpu", "h1000"], "'h1000' is not one of"),
        (["calibrate-gpu"], "calibrate-gpu"),
    ],
)
def test_mistakes_are_one_line(here, args, said):
    code, _, err = here("run", "--choose-for", "tiny", "-w", "tiny-video", *args)
    assert code == 2
    assert said in err
    assert len(err.strip().splitlines()) == 1
