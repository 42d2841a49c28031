"""Time and cost said in advance: by the rules of sampling, by an earlier result, by a rule of
thumb; and a budget that leaves out what will not fit.  Nothing is timed here: the worker is a
fake."""

import json

import pytest
import yaml

from bench.calibrate.cost.ceilings import Ceilings
from bench.core.errors import UserError
from bench.core.load import load, load_point
from bench.core.quantity import Quantity
from bench.core.specs.gpu import Gpu, Price
from bench.core.specs.suite import Sampling
from bench.results.counts import StageCount
from bench.results.store import read_records
from bench.run.basis import (
    POINT_S,
    START_AND_FINISH_S,
    THUMB,
    Basis,
    basis_from,
    latest_basis,
    probed_basis,
    sheet_basis,
)
from bench.run.budget import over_budget
from bench.run.forecast import Forecaster
from bench.run.jobs import suite_jobs
from bench.run.plan_time import (
    beside_calls,
    ceilings_time,
    point_time,
    price_of,
    stage_time,
    time_beside,
    usd,
)
from support.cli import MICRO_SUITE, cli
from support.forecasts import FakeWorker, suite_of
from support.records import counted

PLAN = Sampling(target_relative_half_width=0.02, min_samples=7, max_samples=60, max_s=1.2)


FREE = Ceilings(1e12, 1e12, 1e12, 1e12)


@pytest.mark.parametrize(
    ("call_s", "low", "high"),
    [
        (
            0.001,
            2 * 0.001 + 0.06,
            2 * 0.001 + 0.06,
        ),  # 60 samples come first: they are the most, and a round is 0.25 s
        (0.01, 2 * 0.01 + 0.25, 2 * 0.01 + 0.6),  # a round at the least, 60 samples at the most
        (0.1, 2 * 0.1 + 0.7, 2 * 0.1 + 1.2),  # seven samples; until the stage's time is up
        (1.0, 2 * 1.0 + 3.0, 2 * 1.0 + 3.0),  # three samples, since time is up before
        (6.0, 24.0, 24.0),  # over 5 s: one warm-up and three samples
        (57.0, 171.0, 171.0),  # over 20 s: one warm-up and two samples
    ],
)
def test_a_stage_takes_what_the_rules_of_sampling_say(call_s, low, high):
    span = stage_time(call_s, PLAN)
    assert (span.low, span.high) == (pytest.approx(low), pytest.approx(high))
    assert span.value == pytest.approx((low + high) / 2)
    wide = stage_time(call_s, PLAN, spread=2.0)
    assert (wide.low, wide.high) == (
        stage_time(call_s / 2, PLAN).low,
        stage_time(call_s * 2, PLAN).high,
    )


def test_price_by_hand():
    price = Price(low=2.0, high=4.0, date="", source="")
    assert usd(Quantity(3600.0, 1800.0, 7200.0), price) == Quantity(
        3.0, 1.0, 8.0
    )  # 1 h x 3, 0.5 h x 2, 2 h x 4
    assert usd(Quantity(90.0, 90.0, 90.0), price_of(None, 2.5)).value == pytest.approx(
        0.0625
    )  # 90 / 3600 x 2.50
    assert usd(Quantity(1.0, 1.0, 1.0), None) is None
    assert price_of(load(Gpu, "h100-sxm"), None).low == 1.99
    assert price_of(load(Gpu, "cpu"), None) is None
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match="--price"):
            price_of(None, wrong)


def test_a_point_by_the_rule_of_thumb():
    point = load_point("tiny", "tiny-clip", "eager-fp32")
    count = StageCount.model_validate(counted(linear_flops=6 * 10**12))
    basis = Basis(words="", device="cpu", rates={"fp32": FREE})
    forecast = point_time(point, {"denoise_step": count}, 3 * 10**8, PLAN, basis)
    # 6e12 / (0.5 x 1e12) = 12 s a call, over 5 s: four of them (two times that would be three calls
    # of 24 s, over 20 s);
    # a second to build 0.3 GB at 0.3 GB/s
    assert forecast.span.value == pytest.approx(
        4 * 6 / THUMB["linear_efficiency"] + 1 + POINT_S, rel=1e-4
    )
    assert forecast.provenance == "extrapolated"
    assert forecast.span.low < forecast.span.value < forecast.span.high
    assert point_time(point, {}, 0, PLAN, basis) is None
    assert (
        point_time(
            load_point("tiny", "tiny-clip", "eager-bf16"), {"denoise_step": count}, 0, PLAN, basis
        )
        is None
    )


def test_where_a_prediction_comes_from(measured):
    directory, _ = measured
    root, records = directory.parents[1], read_records(directory)
    device_name = records[0].environment.device_name
    basis = latest_basis(root, "cpu", "cpu", device_name, {"eager-fp32"})
    assert directory.name in basis.words
    assert basis == basis_from(directory, "cpu")
    known = next(r for r in records if r.kind == "point")
    point = load_point("tiny", "tiny-image", "eager-fp32", stages=tuple(known.point["stages"]))
    assert point.fingerprint == known.fingerprint
    assert point_time(point, {}, 0, PLAN, basis).provenance == "measured"
    other = load_point("tiny", "tiny-image", "eager-fp32", {"depth": 3})
    assert point_time(other, known.counts, 0, PLAN, basis).provenance == "fitted"
    assert latest_basis(root, "cpu", "cpu", "another processor", {"eager-fp32"}) is None
    assert latest_basis(root, "cpu", "cpu", device_name, {"eager-bf16"}) is None
    assert latest_basis(root / "none", "cpu", "cpu", device_name, {"eager-fp32"}) is None
    assert sheet_basis(load(Gpu, "h100-sxm"), "cuda").rates["bf16"].gemm_flops_per_s == 989.4e12
    assert sheet_basis(load(Gpu, "cpu"), "cpu") is None
    assert "probe" in probed_basis({"fp32": 1e11}, 1e10, "cpu").words
    probe = {"kind": "gemm", "dtype": "fp32", "flops": 6 * 10**12, "bytes_moved": None}
    assert ceilings_time([probe], PLAN, Basis("", "cpu", rates={"fp32": FREE})).span.value == 24.0


def test_a_dry_run_says_about_what_the_run_took(measured, micro_suite, tmp_path):
    """Factor 3: the machine may be busier now than then."""
    directory, done = measured
    summary = json.loads(done.stdout.splitlines()[-1])
    wall = summary["spent"]["wall_s"]
    assert summary["spent"]["usd"] is None
    assert summary["skipped"] == []
    planned = cli(
        "run",
        str(micro_suite),
        "--dry-run",
        "--device",
        "cpu",
        "--out",
        str(directory.parents[1]),
        "--price",
        "2.50",
        "--json",
    )
    assert planned.returncode == 0, planned.stderr
    plan = json.loads(planned.stdout)
    assert wall / 3 < plan["total_s"] < wall * 3
    assert plan["total_s"] == pytest.approx(
        sum(p["predicted_s"] for p in plan["points"]) + START_AND_FINISH_S
    )
    assert len(plan["points"]) == 6
    assert directory.name in plan["basis"]
    assert plan["cost_usd"]["value"] == pytest.approx(plan["total_s"] / 3600 * 2.5)
    assert len(list(directory.parent.iterdir())) == 1  # nothing was measured


def test_a_dry_run_for_another_card_and_its_mistakes(here, tmp_path):
    suite = tmp_path / "one.yaml"
    suite.write_text(
        yaml.safe_dump(
            {
                **yaml.safe_load(MICRO_SUITE),
                "points": [{"model": "tiny", "workload": "tiny-image", "recipe": "eager-bf16"}],
                "headline": {"model": "tiny", "workload": "tiny-image", "recipe": "eager-bf16"},
            }
        )
    )
    code, out, _ = here("run", str(suite), "--dry-run", "--gpu", "h100-sxm", "--out", str(tmp_path))
    plan = json.loads(out.splitlines()[-1])
    assert (code, plan["gpu"], {p["provenance"] for p in plan["points"]}) == (
        0,
        "h100-sxm",
        {"extrapolated"},
    )
    assert plan["basis"].startswith("extrapolated: ")
    assert plan["cost_usd"]["low"] == pytest.approx(plan["total"]["low"] / 3600 * 1.99)
    assert here("run", "smoke", "--gpu", "h100-sxm")[0] == 2  # without --dry-run
    assert here("run", "smoke", "--dry-run", "--gpu", "h100")[0] == 2
    assert here("run", "smoke", "--dry-run", "--price", "0")[0] == 2
    assert here("run", "smoke", "--dry-run", "--calibration", str(tmp_path / "none"))[0] == 2


def test_the_fewest_calls_follow_the_rules_of_sampling(tmp_path):
    """57 s a call at the best rate so far: three calls, not five."""
    suite = suite_of(("dit-xl-2-diffusers", "image-256"))
    (job,) = suite_jobs(suite)
    worker, forecast = FakeWorker(flops=57 * 10**12), Forecaster(suite, tmp_path, None)
    assert over_budget(job, 172.0, [1e12], worker, forecast, PLAN) is None
    assert (
        over_budget(job, 170.0, [1e12], worker, forecast, PLAN)
        == "would take at least 171 s, 170 s of the budget are left"
    )


def test_on_a_card_the_calls_for_energy_and_launches_are_in_it():
    """A call of 0.1 s: a window of a second and three quarters of a second of replays; 0.5 s: a
    window; over 1 s: none."""
    card = Basis("", "cuda", rates={"fp32": FREE})
    assert beside_calls(0.1, card) == pytest.approx(1.05 + 0.8)
    assert beside_calls(0.5, card) == pytest.approx(1.25)
    assert beside_calls(57.0, card) == 0.0
    assert beside_calls(0.1, Basis("", "cpu", rates={"fp32": FREE})) == 0.0
    assert (
        beside_calls(0.1, Basis("", "cuda", measured={"x": {"denoise_step": 1.0}})) == 0.0
    )  # its point_s has them
    assert card.start_and_finish.value > Basis("", "cpu").start_and_finish.value


def test_beside_a_baseline_only_what_the_recipe_changes_is_paid_for():
    stages = ("text_encode", "trajectory", "vae_decode")
    point, base = (
        load_point("tiny", "tiny-clip", name, None, stages)
        for name in ("steps-4-fp32", "eager-fp32")
    )
    counts = {
        stage: StageCount.model_validate(counted(linear_flops=5 * 10**11)) for stage in stages
    }  # a second each
    basis = Basis("", "cpu", rates={"fp32": FREE})
    plan = PLAN.model_copy(update={"max_s": 3.0})
    both = time_beside(point, base, (), counts, counts, 0, plan, basis).span.value
    changed = time_beside(
        point, base, ("text_encode", "vae_decode"), counts, counts, 0, plan, basis
    ).span.value
    assert both == pytest.approx(
        3 * (5 + 5) + 2 + 2 * POINT_S, rel=1e-3
    )  # and both clips are decoded once
    assert changed == pytest.approx((5 + 5) + 2 + 2 * POINT_S, rel=1e-3)
    whole = time_beside(point, base, ("trajectory",), counts, counts, 0, plan, basis).span.value
    assert whole == pytest.approx(
        2 * (5 + 5) + 2 + 2 + 2 * POINT_S, rel=1e-3
    )  # and a trajectory each for the output
