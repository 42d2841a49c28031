"""Which probe caps a pool's rates, and what a pool without it costs."""

from functools import partial

import pytest

from bench.calibrate.cost.seconds import Priced, seconds_by_class
from bench.calibrate.cost.work import Work
from bench.calibrate.fit import bootstrap
from bench.calibrate.fit_pool import ceilings_for, fit_pool, noise_of
from bench.calibrate.make import calibrate
from bench.calibrate.pools import pools
from bench.core.errors import UserError
from bench.measure.timing.sampling import UNSTABLE, summarise
from support.calibrations import CEILINGS, THETA
from support.fits.pools import attention_probe, ceilings, counted, own_points, record, result

OWN, PUBLIC = "eager-bf16-cudnn-chunks", "eager-bf16-cudnn"


@pytest.fixture(autouse=True, scope="module")
def few_draws():
    """Intervals of rough width, in a tenth of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.calibrate.fit_pool.bootstrap", partial(bootstrap, draws=8))
        yield


def test_the_attention_cap_is_the_best_probe_over_lengths_and_a_long_one_upsets_nothing():
    short = attention_probe(590e12, 32768)
    longest = attention_probe(600e12, 184320)
    assert ceilings_for(ceilings(short, longest), "bf16", "cudnn").attention_size == (
        184320,
        184320,
        128,
    )
    assert ceilings_for(
        ceilings(attention_probe(600e12, 32768), attention_probe(500e12, 184320)), "bf16", "cudnn"
    ).attention_flops_per_s == pytest.approx(600e12)
    (pool,) = pools(
        [*own_points(), record(OWN, {"denoise_step": counted(184320, 3072, 1)}, tokens=184320)]
    )
    at = Work.of(counted(184320, 3072, 42))
    fits = [
        fit_pool(pool, ceilings(*probes))
        for probes in ((attention_probe(600e12, 32768),), (short, longest))
    ]
    predicted = [
        sum(seconds_by_class(at, {n: p.value for n, p in f.parameters.items()}, f.device).values())
        for f in fits
    ]
    assert predicted[1] == pytest.approx(predicted[0], rel=0.01)
    assert predicted[0] == pytest.approx(float(Priced([at], CEILINGS).seconds(THETA)[0]), rel=0.03)
    for name in (
        "attention_efficiency",
        "attention_half_length",
        "attention_half_head",
        "linear_efficiency",
    ):
        assert fits[1].parameters[name].value == pytest.approx(
            fits[0].parameters[name].value, rel=0.05
        ), name


def test_the_ceiling_is_of_the_kernel_that_ran_else_of_what_the_recipe_asks_for():
    probes = ceilings(
        attention_probe(400e12, 16384, "flash"),
        attention_probe(600e12, 16384, "auto", ran="cudnn"),
        attention_probe(650e12, 16384, "cudnn"),
    )
    assert ceilings_for(probes, "bf16", "auto", "cudnn").attention_flops_per_s == pytest.approx(
        650e12
    )
    assert ceilings_for(probes, "bf16", "auto", "flash").attention_flops_per_s == pytest.approx(
        400e12
    )
    assert ceilings_for(probes, "bf16", "auto", "sage").attention_flops_per_s == pytest.approx(
        600e12
    )
    assert ceilings_for(probes, "bf16", "auto").attention_flops_per_s == pytest.approx(600e12)
    with pytest.raises(UserError, match="attention_flops_per_s in bf16, attention math"):
        ceilings_for(probes, "bf16", "math", "math")


def test_a_pool_without_its_ceiling_costs_that_pool_alone(tmp_path):
    calibration = calibrate(
        result(tmp_path / "r", [*own_points(), *own_points("eager-bf16-math", "math")])
    )
    assert list(calibration.fits) == [OWN]


def test_few_samples_weigh_as_their_confidence_has_it():
    """Two samples 2 % apart hold the median with 50 %: 0.674 standard deviations where 95 % takes
    1.960."""
    two = summarise([0.99, 1.01], [], "max_samples", True)
    assert two.confidence == pytest.approx(0.5)
    assert noise_of(two) == pytest.approx(0.01 * 1.960 / 0.6745, rel=1e-3)
    three = summarise([0.99, 1.0, 1.01], [], "max_samples", True)
    assert 0.01 < noise_of(three) < noise_of(two)
    many = summarise([1.0 + 0.001 * i for i in range(40)], [], "converged", True)
    assert noise_of(many) == many.relative_half_width
    assert noise_of(summarise([1.0], [], "timeout", True)) == UNSTABLE
    # The model's own error is the floor, so two that agree by chance weigh no more than many that
    # do.
    assert noise_of(summarise([1.0, 1.0], [], "max_samples", True)) == 0.0
