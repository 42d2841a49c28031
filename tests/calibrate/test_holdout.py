"""Predictions held against points measured afterwards, on the same card and carried over to
another."""

import json

import pytest

from bench.calibrate.fit_pool import ceilings_for
from bench.calibrate.holdout import hold_out, summary
from bench.calibrate.make import calibrate
from bench.calibrate.read import read_calibration
from bench.core.errors import UserError
from bench.results.store import ceilings_record, point_records, read_records
from support.fits.cards import altered, slower

FP32 = ("--set", "recipe.dtype=fp32")


def test_a_point_twice_as_slow_is_missed_by_half(measured, tmp_path):
    directory, _ = measured
    fit = read_calibration(directory).fit_for(None)
    rows, _ = hold_out(read_calibration(directory), altered(directory, tmp_path / "b", slower(2.0)))
    by_stage = {(s.point, s.stage): s.fitted_s / s.measured_s for s in fit.stages}
    assert len(rows) == len(fit.stages)
    for row in rows:
        assert row.raw_error == pytest.approx(by_stage[row.point, row.stage] / 2 - 1, rel=1e-6)
        assert row.error == pytest.approx((1 + row.raw_error) * row.drift - 1)
        predicted = row.predicted_s
        assert predicted.low <= predicted.value <= predicted.high
        assert row.inside == (predicted.low <= row.measured_s.value <= predicted.high)
    found = summary(rows)
    assert found["error"]["worst"] == pytest.approx(max(abs(r.error) for r in rows))
    assert found["constant_mfu_baseline"]["n"] == len(rows)


def test_a_machine_that_slowed_down_is_no_error_of_the_prediction(measured, tmp_path):
    """All that was measured takes 1.2 times as long, the sentinel too."""
    directory, _ = measured

    def busier(record):
        record = slower(1.2)(record)
        if record.get("sentinel"):
            record["sentinel"] = {key: 1.2 * s for key, s in record["sentinel"].items()}
        return record

    before, _ = hold_out(
        read_calibration(directory), altered(directory, tmp_path / "a", slower(1.0))
    )
    after, _ = hold_out(read_calibration(directory), altered(directory, tmp_path / "b", busier))
    for a, b in zip(before, after, strict=True):
        assert b.drift == pytest.approx(1.2 * a.drift)
        assert b.error == pytest.approx(a.error)
        assert b.raw_error == pytest.approx((1 + a.raw_error) / 1.2 - 1)
    assert summary(after)["drift"] == pytest.approx(1.2 * summary(before)["drift"])


def test_what_was_fitted_proves_nothing(measured):
    directory, _ = measured
    with pytest.raises(
        UserError, match=r"no point that the calibration never saw \(.*it was part of the fit"
    ):
        hold_out(read_calibration(directory), directory)


def test_the_command_fails_where_the_error_is_over_what_is_allowed(here, measured, tmp_path):
    directory, _ = measured
    other = altered(directory, tmp_path / "29991231T000000Z_later", slower(3.0))
    code, out, err = here(
        "calibrate",
        str(directory),
        "--against",
        str(other),
        "--max-median",
        "0.08",
        "--max-worst",
        "50",
        "--json",
    )
    document = json.loads(out)
    assert code == 1
    assert document["failed"] == [line for line in err.splitlines() if "median error" in line]
    assert len(document["failed"]) == 1
    assert here("calibrate", str(directory), "--against", str(other), "--max-median", "9")[0] == 0
    code, _, err = here("calibrate", str(directory), "--against", str(other), "--max-worst", "-1")
    assert (code, len(err.strip().splitlines())) == (2, 1)


def test_points_of_one_size_alone_are_refused_with_what_would_help(measured, tmp_path):
    directory, _ = measured
    first = point_records(read_records(directory))[0]

    def same(record):
        if record["kind"] == "ceilings":
            return record
        return record | {
            "tokens": first.tokens,
            "counts": json.loads(first.model_dump_json())["counts"],
            "timings": json.loads(first.model_dump_json())["timings"],
        }

    other = altered(directory, tmp_path / "one", same)
    with pytest.raises(
        UserError, match=r"all \d denoise steps are of one size .*add points of more sizes"
    ):
        calibrate(other)


def test_ceilings_of_a_cpu_know_its_slow_convolution(measured):
    record = ceilings_record(read_records(measured[0]))
    device = ceilings_for(record, "fp32", "auto")
    assert device.small_conv_flops_per_s < device.conv_flops_per_s
    assert device.fresh_bytes_per_s is not None
    assert device.activation_bytes_per_s is not None
    assert [size for size, _ in device.ladder] == sorted(size for size, _ in device.ladder)
    assert len(device.ladder) == 5
    elsewhere = record.model_copy(
        update={"environment": record.environment.model_copy(update={"device": "cuda"})}
    )
    assert ceilings_for(elsewhere, "fp32", "auto").fresh_bytes_per_s is None
