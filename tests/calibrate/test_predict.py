"""A whole video from a calibration: by hand, with its provenance, energy and dollars."""

import pytest

from bench.core.errors import UserError
from bench.core.load import load_point
from bench.results.video import minutes_per_gpu_hour
from support.calibrations import (
    calibration,
    estimate,
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
