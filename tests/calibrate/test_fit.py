"""The fit recovers what synthetic data was made from, and its errors are what they say."""

from dataclasses import replace

import numpy as np
import pytest

from bench.calibrate.cost.parameters import NAMES, PARAMETERS
from bench.calibrate.cost.seconds import Priced
from bench.calibrate.fit import (
    Observation,
    bootstrap,
    constant_mfu_leave_one_out,
    fit,
    identified,
    leave_a_size_out,
    leave_one_out,
    upward,
)
from bench.calibrate.fitting.accuracy import TooFewPoints, errors_of
from support.calibrations import (
    CEILINGS,
    THETA,
)
from support.fits.observations import synthetic

WELL_TOLD = [
    NAMES.index(name)
    for name in (
        "linear_efficiency",
        "attention_efficiency",
        "conv_efficiency",
        "memory_efficiency",
        "kernel_s",
    )
]


def test_exact_data_gives_the_rates_back():
    """All but for the pull of the priors, which weighs against 24 points of 3 % as 1 to some
    hundreds."""
    fitted = fit(synthetic(0.0), CEILINGS)
    assert fitted.converged
    np.testing.assert_allclose(fitted.theta[WELL_TOLD], THETA[WELL_TOLD], rtol=0.06)
    assert np.abs(fitted.residuals).max() < 0.02


@pytest.mark.parametrize("seed", range(3))
def test_noisy_data_gives_them_within_three_standard_errors(seed):
    observations = synthetic(0.03, seed=seed)
    fitted = fit(observations, CEILINGS)
    errors = np.log(bootstrap(observations, fitted, seed, draws=40)).std(axis=0)
    assert (np.abs(np.log(fitted.theta / THETA)) < 3 * errors)[fitted.observed].all()


def test_ninety_percent_intervals_hold_about_ninety_percent():
    """Of predictions of new points: each parameter draw with each held-out residual, as `predict`
    joins them."""
    inside, seen = 0, 0
    for seed in range(12):
        observations = synthetic(0.04, n=20, seed=seed)
        new = synthetic(0.04, n=12, seed=1000 + seed)
        fitted = fit(observations, CEILINGS)
        draws = bootstrap(observations, fitted, seed, draws=24)
        spread = np.exp(list(leave_one_out(observations, CEILINGS).values()))
        priced = Priced([o.work for o in new], CEILINGS)
        predictions = np.array([priced.seconds(theta) for theta in draws])  # (draws, new)
        for i, o in enumerate(new):
            low, high = np.percentile(np.outer(predictions[:, i], spread), (5, 95))
            inside, seen = inside + (low <= o.seconds <= high), seen + 1
    assert 0.82 <= inside / seen <= 0.98, (
        inside / seen
    )  # 144 draws of a 90 % chance: 2.5 % standard error


def test_one_disturbed_point_does_not_steer_the_fit():
    observations = synthetic(0.01)
    observations[3] = replace(observations[3], seconds=3 * observations[3].seconds)
    np.testing.assert_allclose(
        fit(observations, CEILINGS).theta[WELL_TOLD[:2]], THETA[WELL_TOLD[:2]], rtol=0.1
    )


def test_a_noisy_stage_weighs_less():
    exact = synthetic(0.0)
    wrong = [
        replace(o, seconds=2 * o.seconds, noise=2.0) if i < 4 else o for i, o in enumerate(exact)
    ]
    trusted = [replace(o, noise=0.0) for o in wrong]

    def off(observations):
        return np.abs(np.log(fit(observations, CEILINGS).theta / fit(exact, CEILINGS).theta))[
            WELL_TOLD
        ].max()

    assert off(wrong) < 0.3 * off(trusted)


def test_a_class_without_work_is_not_fitted():
    fitted = fit(synthetic(0.0, conv=False), CEILINGS)
    assert not fitted.observed[NAMES.index("conv_efficiency")]
    assert fitted.observed[NAMES.index("linear_half_size")]


def test_what_the_points_do_not_tell_stays_at_its_prior_and_is_marked():
    observations = [
        replace(o, work=replace(o.work, size=np.zeros_like(o.work.size))) for o in synthetic(0.01)
    ]
    fitted = fit(observations, CEILINGS)
    told = identified(bootstrap(observations, fitted, draws=40))
    assert told[NAMES.index("linear_efficiency")]
    assert not told[NAMES.index("attention_half_length")]
    assert fitted.theta[NAMES.index("attention_half_length")] == pytest.approx(
        PARAMETERS["attention_half_length"].prior, rel=1e-3
    )


def test_parameters_can_be_held():
    observations = synthetic(0.0)
    fitted = fit(observations, CEILINGS, fixed={"linear_efficiency": 0.5})
    assert fitted.theta[NAMES.index("linear_efficiency")] == 0.5
    assert not fitted.at_bound("linear_efficiency")
    assert (
        bootstrap(observations, fitted, draws=3)[:, NAMES.index("linear_efficiency")] == 0.5
    ).all()


def test_rates_over_the_ceiling_stop_at_the_bound_and_are_marked():
    observations = [replace(o, seconds=0.1 * o.seconds) for o in synthetic(0.0)]
    fitted = fit(observations, CEILINGS)
    assert fitted.at_bound("linear_efficiency")
    assert fitted.theta[0] == pytest.approx(PARAMETERS["linear_efficiency"].high)


def test_too_few_points_say_how_many_are_needed():
    with pytest.raises(TooFewPoints, match="5 measured stages for 5 rates: at least 6"):
        fit(synthetic(0.0, n=5), CEILINGS)
    with pytest.raises(TooFewPoints, match="no measured stage"):
        fit([], CEILINGS)


def test_held_out_errors_are_those_of_fits_that_had_not_seen_the_point():
    observations = synthetic(0.0)
    assert max(abs(e) for e in leave_one_out(observations, CEILINGS).values()) < 0.06
    observations[5] = replace(observations[5], seconds=1.5 * observations[5].seconds)
    errors = leave_one_out(observations, CEILINGS)
    assert errors[5] == pytest.approx(np.log(1.5), abs=0.05)
    assert len(errors) == len(observations)


def test_without_a_size_no_point_of_it_is_seen():
    observations = [replace(o, tokens=i // 6) for i, o in enumerate(synthetic(0.0))]
    observations[:6] = [replace(o, seconds=1.5 * o.seconds) for o in observations[:6]]
    errors = leave_a_size_out(observations, CEILINGS)
    assert min(errors[i] for i in range(6)) > 0.35
    assert (
        min(leave_one_out(observations, CEILINGS)[i] for i in range(6)) < 0.35
    )  # its neighbours are as slow
    assert len(errors) == 24


def test_the_only_point_of_a_class_cannot_be_held_out():
    observations = synthetic(0.0, conv=False)
    errors = leave_one_out([*observations, synthetic(0.0)[0]], CEILINGS)
    assert len(errors) == len(observations)


def test_the_larger_half_is_predicted_from_the_smaller():
    errors = upward(synthetic(0.0, n=30, conv=False), CEILINGS)
    assert len(errors) == 15
    assert max(abs(e) for e in errors) < 0.05
    assert upward(synthetic(0.0, n=8), CEILINGS) == []  # four cannot bear five rates


def test_one_mfu_for_all_is_worse_and_counted_by_hand():
    made = synthetic(0.0, n=1)[0].work
    observations = [
        Observation(str(i), "denoise_step", made, s, f)
        for i, (s, f) in enumerate([(1.0, 100), (1.0, 200), (1.0, 400)])
    ]
    # Without the first: geometric mean of 200 and 400 is 283 FLOP/s, so 100 FLOP are predicted to
    # take 0.354 s.
    errors = constant_mfu_leave_one_out(observations)
    assert np.exp(-errors[0]) == pytest.approx(100 / np.sqrt(200 * 400))
    summary = errors_of(errors)
    assert summary.worst == pytest.approx(400 / np.sqrt(100 * 200) - 1)
    assert summary.n == 3
    assert errors_of([]) is None
    with pytest.raises(ValueError, match="finite"):  # JSON has no such number
        errors_of([float("nan")])
