"""What a budget leaves out, by what is predicted, on a worker that is a fake."""

from types import SimpleNamespace

import pytest

from bench.calibrate.cost.ceilings import Ceilings
from bench.core.specs.suite import Sampling
from bench.run.basis import (
    POINT_S,
    START_AND_FINISH_S,
    Basis,
)
from bench.run.budget import over_budget
from bench.run.documents import plan_document, spent_document
from bench.run.forecast import TIMEOUT_FACTOR, Forecaster
from bench.run.jobs import suite_jobs
from bench.run.plan_time import (
    price_of,
)
from support.forecasts import FakeWorker, suite_of
from support.records import point_record

PLAN = Sampling(target_relative_half_width=0.02, min_samples=7, max_samples=60, max_s=1.2)


FREE = Ceilings(1e12, 1e12, 1e12, 1e12)


OTHER_FIT = SimpleNamespace(
    recipes=["another"], serves=lambda recipe: False
)  # of none of the points here


def forecaster(suite, seconds: dict[str, float], tmp_path, known=True) -> Forecaster:
    """That an earlier result measured these points, by workload."""
    jobs = suite_jobs(suite)
    measured = {
        j.fingerprint: {"denoise_step": seconds[j.point.workload.name]}
        for j in jobs
        if j.point.workload.name in seconds
    }
    basis = Basis(
        words="",
        device="cpu",
        measured=measured,
        fits={"another": OTHER_FIT} if known else {},
        point_s=0.0,
    )
    return Forecaster(suite, tmp_path, None, basis=basis)


def test_a_budget_leaves_out_what_is_predicted_not_to_fit(tmp_path):
    suite = suite_of(("tiny", "tiny-image"), ("tiny", "tiny-clip"))
    image, clip = suite_jobs(suite)
    worker, forecast = (
        FakeWorker(),
        forecaster(suite, {"tiny-image": 6.0, "tiny-clip": 0.1}, tmp_path),
    )
    why = over_budget(image, 20.0, [], worker, forecast, PLAN)
    assert why == "predicted to take 24 s (measured), 20 s of the budget are left"  # 4 x 6 s
    assert over_budget(image, 25.0, [], worker, forecast, PLAN) is None
    assert over_budget(clip, 20.0, [], worker, forecast, PLAN) is None
    assert over_budget(image, None, [], worker, forecast, PLAN) is None
    assert over_budget(clip, 0.0, [], worker, forecast, PLAN) == "the budget is spent"
    assert worker.counted == []  # an earlier measurement needs no count
    record = point_record().model_copy(
        update={"fingerprint": image.fingerprint, "outcome": "skipped_budget", "reason": why}
    )
    assert forecast.skipped([record]) == [
        {"point": record.label, "predicted_s": 24.0, "reason": why}
    ]


def test_without_a_basis_the_best_rate_so_far_bounds_it_for_public_models_too(tmp_path):
    suite = suite_of(("dit-xl-2-diffusers", "image-256"), ("tiny", "tiny-clip"))
    public, own = suite_jobs(suite)
    worker, forecast = FakeWorker(flops=10**12), Forecaster(suite, tmp_path, None)
    assert over_budget(public, 1.0, [], worker, forecast, PLAN) is None  # nothing measured yet
    why = over_budget(public, 4.0, [1e12, 5e11], worker, forecast, PLAN)  # 5 calls x 1e12 / 1e12
    assert why == "would take at least 5 s, 4 s of the budget are left"
    assert over_budget(public, 6.0, [1e12], worker, forecast, PLAN) is None
    assert worker.counted == ["count"]  # once
    assert over_budget(own, 1e9, [1e12], worker, forecast, PLAN) is None
    assert "at least" in over_budget(own, 1e-3, [1e9], worker, forecast, PLAN)
    broken = Forecaster(suite, tmp_path, None)
    assert (
        over_budget(public, 4.0, [1e12], FakeWorker(fails=True), broken, PLAN) is None
    )  # measuring it will say why


def test_a_rule_of_thumb_leaves_out_what_does_not_fit_at_its_low_end(tmp_path):
    """2 s a call by the rule of thumb, 1 s at its low end: two of warm-up and three samples."""
    suite = suite_of(("tiny", "tiny-image"))
    (job,) = suite_jobs(suite)
    worker = FakeWorker(flops=10**12)
    forecast = Forecaster(suite, tmp_path, None, basis=Basis("", "cpu", rates={"fp32": FREE}))
    assert forecast.predict(job, worker).span.value == pytest.approx(5 * 2 + POINT_S, rel=1e-3)
    assert forecast.predict(job, worker).least_s == pytest.approx(5 * 1 + POINT_S, rel=1e-3)
    assert over_budget(job, 6.0, [], worker, forecast, PLAN) is None
    assert (
        over_budget(job, 5.0, [], worker, forecast, PLAN)
        == "predicted to take 10.6 s (extrapolated), at the least 5.6 s, 5 s of the budget are left"
    )


def test_the_time_limit_follows_the_prediction(tmp_path):
    suite = suite_of(("tiny", "tiny-image"), ("tiny", "tiny-clip"))  # whose own limit is 60 s
    image, clip = suite_jobs(suite)
    forecast = forecaster(suite, {"tiny-image": 57.0, "tiny-clip": 0.1}, tmp_path)
    assert forecast.time_limit(image, FakeWorker()) == pytest.approx(TIMEOUT_FACTOR * 3 * 57.0)
    assert forecast.time_limit(clip, FakeWorker()) == 60.0
    assert Forecaster(suite, tmp_path, None).time_limit(image, FakeWorker()) == 60.0


def test_the_headline_goes_first_where_it_leaves_room(tmp_path):
    suite = suite_of(("tiny", "tiny-image"), ("tiny", "tiny-clip"))
    image, clip = jobs = suite_jobs(suite)
    worker, seconds = FakeWorker(), {"tiny-image": 0.1, "tiny-clip": 6.0}
    assert forecaster(suite, seconds, tmp_path).headline_first(jobs, worker, 48.0) == [
        clip,
        image,
    ]  # 24 s of 48
    assert forecaster(suite, seconds, tmp_path).headline_first(jobs, worker, 47.0) == jobs
    assert (
        forecaster(suite, seconds, tmp_path, known=False).headline_first(jobs, worker, 1e6) == jobs
    )
    plan = plan_document(forecaster(suite, seconds, tmp_path), jobs, worker, "cpu", None, 30.0)
    assert [row["point"] for row in plan["skipped"]] == []
    plan = plan_document(forecaster(suite, seconds, tmp_path), jobs, worker, "cpu", None, 20.0)
    assert [row["point"] for row in plan["skipped"]] == [clip.label]
    assert plan["total_s"] < 20


def test_what_was_spent_stands_beside_what_was_said(tmp_path):
    suite = suite_of(("tiny", "tiny-image"), ("tiny", "tiny-clip"))
    image, clip = suite_jobs(suite)
    forecast = forecaster(suite, {"tiny-image": 6.0, "tiny-clip": 6.0}, tmp_path)
    forecast.note(image, point_record(), FakeWorker())
    forecast.note(
        clip, point_record().model_copy(update={"outcome": "skipped_budget"}), FakeWorker()
    )
    spent = spent_document(forecast, 36.0, price_of(None, 100.0))
    assert spent["predicted_s"] == 24.0 + START_AND_FINISH_S  # of what was carried out
    assert spent["usd"] == {
        "value": 1.0,
        "low": 1.0,
        "high": 1.0,
    }  # 36 s are a hundredth of an hour
    nothing = Forecaster(suite, tmp_path, None)
    nothing.note(image, point_record(), FakeWorker())
    assert spent_document(nothing, 1.0, None)["predicted_s"] is None
