"""The fit recovers what synthetic data was made from, and its errors are what they say."""

import numpy as np
import pytest

from bench.calibrate.calibration import Calibration, Errors, Fit, Parameter, Range
from bench.calibrate.cost_model import BOUNDS, PARAMETERS, Ceilings, features, seconds, seconds_by_class
from bench.calibrate.fit import (
    Observation,
    TooFewPoints,
    bootstrap,
    constant_mfu_leave_one_out,
    error_summary,
    fit,
    leave_one_out,
    upward,
)
from bench.calibrate.predict import minutes_per_gpu_hour, predict
from bench.core.errors import UserError
from bench.core.load import load_point
from bench.core.records import Environment, StageCount

TRUTH = np.array([0.65, 0.45, 0.3, 0.8, 8e-6])
CEILINGS = Ceilings(gemm_flops_per_s=800e12, attention_flops_per_s=600e12, conv_flops_per_s=400e12,
                    copy_bytes_per_s=2.9e12)


def environment() -> Environment:
    return Environment(gpu="cpu", device="cpu", device_name="test", device_uuid_hash=None, driver=None, cuda=None,
                       cudnn=None, torch="2.13.0", python="3.11", os="Linux x86_64", threads=2, memory_bytes=1,
                       code_version="test")


def synthetic(noise: float, n: int = 24, seed: int = 0, conv: bool = True) -> list[Observation]:
    """Stages of many sizes whose seconds follow the model, with log-normal noise."""
    rng = np.random.default_rng(seed)
    out = []
    for i in range(n):
        scale = 10 ** rng.uniform(-3, 0)
        x = np.array([scale, scale * 10 ** rng.uniform(-1.5, 1), scale if conv and i % 4 == 0 else 0.0,
                      scale * 10 ** rng.uniform(-1, 0.3), float(rng.integers(100, 3000))])
        t = seconds(x[None], TRUTH)[0] * np.exp(noise * rng.standard_normal())
        out.append(Observation(f"p{i}", "denoise_step", x, float(t), int(1e12 * x[:3].sum())))
    return out


def test_exact_data_gives_the_exact_parameters():
    fitted = fit(synthetic(0.0))
    assert fitted.converged
    np.testing.assert_allclose(fitted.theta, TRUTH, rtol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_noisy_data_gives_them_within_three_standard_errors(seed):
    observations = synthetic(0.03, seed=seed)
    fitted = fit(observations)
    errors = np.log(bootstrap(observations, fitted, seed)).std(axis=0)
    assert (np.abs(np.log(fitted.theta / TRUTH)) < 3 * errors).all()


def test_one_disturbed_point_does_not_steer_the_fit():
    observations = synthetic(0.01)
    o = observations[3]
    observations[3] = Observation(o.point, o.stage, o.x, 3 * o.seconds, o.flops)
    np.testing.assert_allclose(fit(observations).theta[:2], TRUTH[:2], rtol=0.1)


def test_a_class_without_work_is_not_fitted():
    fitted = fit(synthetic(0.0, conv=False))
    assert not fitted.observed[PARAMETERS.index("conv_efficiency")]
    np.testing.assert_allclose(fitted.theta[[0, 1, 3, 4]], TRUTH[[0, 1, 3, 4]], rtol=1e-4)


def test_rates_over_the_ceiling_stop_at_the_bound_and_are_marked():
    observations = [Observation(o.point, o.stage, o.x, 0.2 * o.seconds, o.flops) for o in synthetic(0.0)]
    fitted = fit(observations)
    assert fitted.at_bound(0)
    assert fitted.theta[0] == pytest.approx(BOUNDS["linear_efficiency"][1])


def test_too_few_points_say_how_many_are_needed():
    with pytest.raises(TooFewPoints, match="5 measured stages for 5 parameters: at least 6"):
        fit(synthetic(0.0, n=5))
    with pytest.raises(TooFewPoints, match="no measured stage"):
        fit([])


def test_held_out_errors_are_those_of_fits_that_had_not_seen_the_point():
    observations = synthetic(0.0)
    assert max(abs(e) for e in leave_one_out(observations).values()) < 1e-3
    o = observations[5]
    observations[5] = Observation(o.point, o.stage, o.x, 1.5 * o.seconds, o.flops)
    errors = leave_one_out(observations)
    assert errors[5] == pytest.approx(np.log(1.5), abs=0.05)
    assert len(errors) == len(observations)


def test_the_only_point_of_a_class_cannot_be_held_out():
    observations = synthetic(0.0, conv=False)
    with_conv = synthetic(0.0)[0]
    errors = leave_one_out([*observations, with_conv])
    assert len(errors) == len(observations)


def test_the_larger_half_is_predicted_from_the_smaller():
    errors = upward(synthetic(0.0, n=30))
    assert len(errors) == 15
    assert max(abs(e) for e in errors) < 1e-2
    assert upward(synthetic(0.0, n=8)) == []                  # four cannot bear five parameters


def test_one_mfu_for_all_is_worse_and_counted_by_hand():
    observations = [Observation(str(i), "denoise_step", np.ones(5), s, f)
                    for i, (s, f) in enumerate([(1.0, 100), (1.0, 200), (1.0, 400)])]
    # Without the first: geometric mean of 200 and 400 is 283 FLOP/s, so 100 FLOP are predicted to take 0.354 s.
    errors = constant_mfu_leave_one_out(observations)
    assert np.exp(-errors[0]) == pytest.approx(100 / np.sqrt(200 * 400))
    summary = error_summary(errors)
    assert summary["worst"] == pytest.approx(400 / np.sqrt(100 * 200) - 1)
    assert summary["n"] == 3
    assert error_summary([]) is None


def count(**flops: int) -> StageCount:
    base = dict.fromkeys(("linear_flops", "attention_flops", "conv_flops", "other_flops", "norm_flops",
                          "bytes_modelled_min", "bytes_modelled_max", "bytes_elementwise", "bytes_largest_operator",
                          "bytes_peak_activations", "kernels"), 0)
    return StageCount(**{**base, **flops}, uncounted_ops={})


def test_features_are_seconds_at_the_ceilings():
    x = features(count(linear_flops=8 * 10**14, other_flops=8 * 10**14, attention_flops=6 * 10**14, kernels=7), CEILINGS)
    np.testing.assert_allclose(x, [2.0, 1.0, 0.0, 0.0, 7.0])
    parts = seconds_by_class(x, {"linear_efficiency": 0.5, "attention_efficiency": 0.25, "conv_efficiency": None,
                                 "memory_efficiency": 1.0, "kernel_s": 0.1})
    assert parts == pytest.approx({"linear": 4.0, "attention": 4.0, "conv": 0.0, "memory": 0.0, "kernel": 0.7})


def calibration(conv: float | None = 0.3, power: float | None = None) -> Calibration:
    values = dict(zip(PARAMETERS, [0.5, 0.5, conv, 1.0, 1e-6], strict=True))
    parameters = {n: Parameter(value=v, low=v, high=v, unit="", at_bound=False) for n, v in values.items()}
    fitted = Fit(recipe="eager-bf16", dtype="bf16", attention="auto", ceilings=vars(CEILINGS), parameters=parameters,
                 draws=[[0.5, 0.5, conv or 1.0, 1.0, 1e-6]] * 4, residuals=[-0.1, 0.0, 0.1],
                 leave_one_out=Errors(mean=0.05, worst=0.1, n=3), leave_one_out_by_stage={}, upward=None,
                 constant_mfu_baseline=None, constant_mfu_flops_per_s=None, converged=True,
                 ranges={"tokens": Range(low=100, high=1024)}, stages=[])
    return Calibration(gpu="h100-sxm", device_name="x", suite="s", headline_recipe="eager-bf16", headline=None,
                       headline_missing=None, reference=None, reference_missing=None, fits={"eager-bf16": fitted},
                       power_w=power)


def estimate(workload="image-512", c=None, gpu=None):
    c = c or calibration()
    point = load_point("sora-3b", workload, "eager-bf16")
    counts = {
        "denoise_step": count(linear_flops=8 * 10**14), "vae_decode": count(conv_flops=12 * 10**13),
        "text_encode": count(linear_flops=4 * 10**14),
    }
    return predict(point, counts, {"denoiser": 3 * 10**9}, c, c.fit_for(None), gpu)


def test_prediction_by_hand():
    """A step of 8e14 FLOP at half of 800e12 takes 2 s; the decode 1 s; the prompt 1 s; 250 steps of a 1/24 s clip."""
    e = estimate()
    assert e.step_s.value == pytest.approx(2.0)
    assert e.video_s.value == pytest.approx(250 * 2.0 + 1.0 + 1.0)
    assert e.minutes_per_gpu_hour.value == pytest.approx(1 / 24 / 60 * 3600 / 502)
    assert e.video_s.low < 502 * 0.95 < 502 < 502 * 1.05 < e.video_s.high      # residuals of 10 % either way
    assert e.provenance == "fitted"
    assert any("no energy" in w for w in e.warnings)


def test_outside_the_calibrated_range_it_is_an_extrapolation_and_says_by_how_much():
    e = estimate("720p-81f")
    assert e.provenance == "extrapolated"
    assert any("tokens" in w and "times the largest measured" in w for w in e.warnings)


def test_guidance_encodes_the_empty_prompt_too():
    e = estimate("480p-81f")
    assert e.stages["text_encode"].value == pytest.approx(2.0)


def test_energy_and_dollars_per_minute():
    from bench.core.load import load
    from bench.core.spec import Gpu

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
    assert minutes_per_gpu_hour(workload, 7200.0) == pytest.approx(1.0)       # two minutes in two hours
