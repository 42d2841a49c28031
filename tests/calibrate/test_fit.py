"""The fit recovers what synthetic data was made from, and its errors are what they say."""

from dataclasses import replace

import numpy as np
import pytest

from bench.calibrate.cost_model import (
    NAMES,
    PARAMETERS,
    Priced,
    Work,
    seconds_by_class,
)
from bench.calibrate.fit import (
    Observation,
    TooFewPoints,
    bootstrap,
    constant_mfu_leave_one_out,
    error_summary,
    fit,
    identified,
    leave_a_size_out,
    leave_one_out,
    upward,
)
from bench.core.errors import UserError
from bench.core.load import load_point
from bench.results.video import minutes_per_gpu_hour
from support.calibrations import (
    BARE,
    CEILINGS,
    THETA,
    calibration,
    estimate,
    operators,
    theta,
    work,
)
from support.records import count

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


def synthetic(noise: float, n: int = 24, seed: int = 0, conv: bool = True) -> list[Observation]:
    """Stages of many sizes whose seconds follow the model, with log-normal noise."""
    rng = np.random.default_rng(seed)
    out = []
    for i in range(n):
        made, flops, tokens = work(rng, conv and i % 4 == 0)
        t = Priced([made], CEILINGS).seconds(THETA)[0] * np.exp(noise * rng.standard_normal())
        out.append(Observation(f"p{i}", "denoise_step", made, float(t), flops, noise, tokens))
    return out


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
    summary = error_summary(errors)
    assert summary["worst"] == pytest.approx(400 / np.sqrt(100 * 200) - 1)
    assert summary["n"] == 3
    assert error_summary([]) is None


def test_sums_alone_are_priced_as_one_large_operator_of_each_class():
    """8e14 FLOP at half of 800e12 take 2 s, others as linear; 6e14 of attention at a quarter of
    600e12 take 4 s."""
    made = Work.of(
        count(
            linear_flops=8 * 10**14,
            other_flops=8 * 10**14,
            attention_flops=6 * 10**14,
            kernels=7,
            bytes_elementwise=10**12,
        )
    )
    parts = seconds_by_class(
        made,
        theta(
            linear_efficiency=0.5,
            attention_efficiency=0.25,
            conv_efficiency=None,
            memory_efficiency=1.0,
            kernel_s=0.1,
            call_s=0.25,
        ),
        BARE,
    )
    assert parts == pytest.approx(
        {
            "linear": 4.0,
            "attention": 4.0,
            "cross_attention": 0.0,
            "conv": 0.0,
            "activation": 0.0,
            "memory": 0.5,
            "kernel": 0.7,
            "fixed": 0.25,
        }
    )


def test_a_small_product_fills_the_multipliers_less():
    """Half-size 64 at the ceiling's probe of 1024 cubed: (1 + 3 x 64 / 1024) / (1 + 3 x 64 / 64) =
    1.1875 / 4."""
    device = replace(BARE, gemm_size=(1024, 1024, 1024))
    small = operators(("linear", 64, 64, 64, 2 * 64**3, 0, 0, 1))
    probe = operators(("linear", 1024, 1024, 1024, 2 * 1024**3, 0, 0, 1))
    at = theta(linear_efficiency=1.0, linear_half_size=64.0)
    assert seconds_by_class(probe, at, device)["linear"] == pytest.approx(2 * 1024**3 / 800e12)
    assert seconds_by_class(small, at, device)["linear"] == pytest.approx(
        2 * 64**3 / 800e12 * 4 / 1.1875
    )
    huge = operators(("linear", 10**6, 10**6, 10**6, 2 * 10**18, 0, 0, 1))
    assert seconds_by_class(huge, at, device)["linear"] == pytest.approx(
        2 * 10**18 / 800e12
    )  # never over the ceiling


def test_a_product_takes_its_arithmetic_or_its_bytes_whichever_is_longer():
    """A token of an 8,192-wide layer: 134e6 FLOP take 0.17 us, its 134 MB of weights 67 us at 2e12
    bytes/s."""
    row = operators(("linear", 0, 0, 0, 2 * 8192**2, 2 * 8192**2, 0, 1))
    assert seconds_by_class(row, theta(linear_efficiency=1.0), BARE)["linear"] == pytest.approx(
        2 * 8192**2 / 2e12
    )


def test_copies_run_at_the_speed_of_the_cache_they_fit():
    device = replace(BARE, ladder=((1e6, 8e12), (1e8, 2e12)))
    at = theta(memory_efficiency=0.5)
    for moved, rate in ((10**5, 8e12), (10**6, 8e12), (10**7, 4e12), (10**8, 2e12), (10**9, 2e12)):
        row = operators(("memory", 0, 0, 0, 0, moved, 0, 3))
        assert seconds_by_class(row, at, device)["memory"] == pytest.approx(3 * moved / rate / 0.5)


def test_only_a_cpu_pages_in_large_results_anew():
    large = operators(("memory", 0, 0, 0, 0, 2 * 10**8, 10**8, 1))
    at = theta(memory_efficiency=1.0)
    assert seconds_by_class(large, at, BARE)["memory"] == pytest.approx(1e-4)
    assert seconds_by_class(large, at, replace(BARE, fresh_bytes_per_s=5e9))[
        "memory"
    ] == pytest.approx(1e-4 + 0.02)
    small = operators(("memory", 0, 0, 0, 0, 2 * 10**6, 10**6, 1))
    assert seconds_by_class(small, at, replace(BARE, fresh_bytes_per_s=5e9))[
        "memory"
    ] == pytest.approx(1e-6)


def test_only_a_cpu_has_the_slow_convolution():
    row = operators(("small_conv", 100, 32, 864, 4 * 10**12, 0, 0, 1))
    at = theta(conv_efficiency=0.5, conv_half_size=0.0, small_conv_efficiency=1.0)
    assert seconds_by_class(row, at, BARE)["conv"] == pytest.approx(0.02)
    assert seconds_by_class(row, at, replace(BARE, small_conv_flops_per_s=1e12))[
        "conv"
    ] == pytest.approx(4.0)


def test_cross_attention_is_told_apart_by_its_lengths():
    row = operators(
        ("attention", 1024, 77, 64, 6 * 10**12, 0, 0, 1),
        ("attention", 1024, 1024, 64, 6 * 10**12, 0, 0, 2),
    )
    parts = seconds_by_class(
        row,
        theta(attention_efficiency=0.5, attention_half_length=24.0, attention_half_head=16.0),
        BARE,
    )
    one = 6e12 / 600e12 / 0.5
    assert parts["attention"] == pytest.approx(2 * one * (1 + 24 * 2 / 1024 + 16 / 64))
    assert parts["cross_attention"] == pytest.approx(one * (1 + 24 * (1 / 1024 + 1 / 77) + 16 / 64))


def test_works_add_and_scale():
    a, b = (o.work for o in synthetic(0.0, n=2))
    alone = Priced([a, b], CEILINGS).seconds(THETA)
    assert Priced([a * 50 + b], CEILINGS).seconds(THETA)[0] == pytest.approx(
        50 * alone[0] + alone[1]
    )


def test_prediction_by_hand():
    """A step of 8e14 FLOP at half of 800e12 takes 2 s; the decode 1 s; the prompt 1 s; 250 steps of
    a 1/24 s clip."""
    e = estimate()
    assert e.step_s.value == pytest.approx(2.0)
    assert e.video_s.value == pytest.approx(250 * 2.0 + 1.0 + 1.0)
    assert e.minutes_per_gpu_hour.value == pytest.approx(1 / 24 / 60 * 3600 / 502)
    assert (
        e.video_s.low < 502 * 0.95 < 502 < 502 * 1.05 < e.video_s.high
    )  # residuals of 10 % either way
    assert e.provenance == "fitted"
    assert any("no energy" in w for w in e.warnings)


def test_outside_the_calibrated_range_it_is_an_extrapolation_and_says_by_how_much():
    e = estimate("720p-81f")
    assert e.provenance == "extrapolated"
    assert any("tokens" in w and "times the largest measured" in w for w in e.warnings)


def test_guidance_encodes_the_empty_prompt_too():
    e = estimate("480p-81f")
    assert e.stages["text_encode"].value == pytest.approx(2.0, rel=1e-5)


def test_energy_and_dollars_per_minute():
    from bench.core.load import load
    from bench.core.specs.gpu import Gpu

    e = estimate(c=calibration(power=700.0), gpu=load(Gpu, "h100-sxm"))
    minutes = e.minutes_per_gpu_hour.value
    assert e.kwh_per_minute.value == pytest.approx(0.7 / minutes)
    assert e.usd_per_minute.low <= 1.99 / minutes <= 4.29 / minutes <= e.usd_per_minute.high
    assert e.fits_memory is True


def test_a_class_of_work_that_was_never_measured_cannot_be_predicted():
    with pytest.raises(UserError, match="needs conv work"):
        estimate(c=calibration(conv=None))


def test_unknown_recipe_is_named_with_those_there_are():
    with pytest.raises(UserError, match="'fp8' is not calibrated.*eager-bf16"):
        calibration().fit_for("fp8")


def test_minutes_per_gpu_hour_counts_the_whole_batch():
    workload = load_point("sora-3b", "sora-1min-512", "eager-bf16", {"workload.batch": 2}).workload
    assert minutes_per_gpu_hour(workload, 7200.0) == pytest.approx(1.0)  # two minutes in two hours
