"""Stages that a recipe leaves as its baseline has them are not timed again, and the record says
whose reading stands."""

import pytest
import torch

from bench.core.load import load, load_point
from bench.core.specs.suite import Suite
from bench.count.touched import TOUCHES, built, untouched
from bench.measure.points.against import Pair, measure_against
from bench.measure.points.build import count_stages
from bench.measure.timing.clock import clock_for
from bench.measure.worker.protocol import PointReply
from bench.report.tables.ablations import ablations_table
from bench.results.records import PointRecord, Reused
from bench.results.store import Store
from bench.run.jobs import suite_jobs
from bench.run.record import is_baseline
from bench.run.runner import Runner
from bench.studies.ablations.gains import ablations
from support.ablations import STAGES, record
from support.plans import PLAN
from support.records import count, environment

ALL = ("text_encode", "trajectory", "vae_decode")
CPU = torch.device("cpu")
COUNTS = {stage: count(linear_flops=10**9) for stage in ALL} | {
    "text_encode": count(attention_flops=10**6)
}


@pytest.mark.parametrize(
    ("recipe", "same"),
    [
        ("steps-4-bf16", {"text_encode", "vae_decode"}),
        ("compile-regional-bf16", {"text_encode", "vae_decode"}),
        ("fp8-bf16", {"text_encode", "vae_decode"}),
        ("cache-taylor-bf16", {"text_encode", "vae_decode"}),
        ("eager-bf16-chunks", {"text_encode", "trajectory"}),
        ("batch-4-bf16", set()),
        ("eager-fp16", set()),
        (
            "eager-bf16-cudnn",
            {"trajectory", "vae_decode"},
        ),  # of these counts the text alone attends
        ("fast-bf16", {"text_encode", "vae_decode"}),
    ],
)
def test_what_a_recipe_leaves_as_it_was(recipe, same):
    point, base = (
        load_point("tiny", "tiny-clip", name, None, ALL) for name in (recipe, "eager-bf16")
    )
    assert set(untouched(point, base, COUNTS)) == same
    assert set(built(point, untouched(point, base, COUNTS)).stages) >= {"trajectory", "vae_decode"}


def test_something_is_always_timed_and_an_unknown_field_touches_everything(monkeypatch):
    point, base = (
        load_point("tiny", "tiny-clip", name, None, ("vae_decode",))
        for name in ("steps-4-bf16", "eager-bf16")
    )
    assert untouched(point, base, COUNTS) == ()
    monkeypatch.delitem(TOUCHES, "steps")
    whole, base = (
        load_point("tiny", "tiny-clip", name, None, ALL) for name in ("steps-4-bf16", "eager-bf16")
    )
    assert untouched(whole, base, COUNTS) == ()


def test_only_what_changes_is_called_and_the_clips_are_still_compared():
    point, base = (
        load_point("tiny", "tiny-image", name, {"workload.steps": 2}, ALL)
        for name in ("batched-guidance-fp32", "eager-fp32")
    )
    counts, theirs = count_stages(point), count_stages(base)
    reading = Reused(
        timing=record("steps-4-bf16", 1.0).timings["vae_decode"], energy_j=5.0, peak_allocated=None
    )
    plan = PLAN.model_copy(update={"min_samples": 2, "max_samples": 2, "max_s": 0.1})
    measured, against = measure_against(
        Pair(point, base, counts, theirs, {"text_encode": reading, "vae_decode": reading}),
        CPU,
        clock_for(CPU),
        plan,
        prior={},
        on_round=lambda *_: None,
    )
    timings, memory, telemetry = measured.readings
    assert set(timings) == set(against.timings) == set(telemetry) == {"trajectory"}
    assert against.reused == {"text_encode": reading, "vae_decode": reading}
    assert against.divergence.relative_l2 < 1e-5
    assert against.divergence.psnr_db is None or against.divergence.psnr_db > 60  # decoded, both
    assert against.point["stages"] == list(ALL)
    assert memory.weights < sum(counts.params.values()) * 4  # no text encoder was built


def test_one_step_is_compared_where_no_trajectory_is():
    point, base = (
        load_point("tiny", "tiny-image", name, {"workload.steps": 1})
        for name in ("batched-guidance-fp32", "eager-fp32")
    )
    plan = PLAN.model_copy(update={"min_samples": 2, "max_samples": 2, "max_s": 0.1})
    _, against = measure_against(
        Pair(point, base, count_stages(point), count_stages(base)),
        CPU,
        clock_for(CPU),
        plan,
        prior={},
        on_round=lambda *_: None,
    )
    assert 0 <= against.divergence.relative_l2 < 1e-5
    assert set(against.timings) == {"denoise_step"}


class Answering:
    """A worker that keeps what it was asked."""

    environment = environment()

    def __init__(self, answer):
        self.asked, self.answer = [], answer

    def run(self, request, timeout_s, on_round):
        self.asked.append(request)
        return self.answer


def test_the_suite_hands_the_baselines_own_readings_to_the_worker(tmp_path):
    suite = load(Suite, "ablations")
    jobs = suite_jobs(suite)
    first, steps = jobs[0], next(j for j in jobs if j.point.recipe.name == "steps-4-bf16")
    made = record("steps-4-bf16", 4.0)
    base = made.model_copy(
        update={
            "against": None,
            "point": first.point.model_dump(mode="json"),
            "counts": {
                **COUNTS,
                "forward": count(linear_flops=1),
                "denoise_step": count(linear_flops=1),
            },
        }
    )
    assert is_baseline(base, environment())
    assert not is_baseline(made, environment())
    assert not is_baseline(base.model_copy(update={"outcome": "unstable"}), environment())
    worker = Answering(
        PointReply(counts=made.counts, timings={"trajectory": made.timings["trajectory"]})
    )
    with Store(tmp_path) as store:
        Runner(suite, worker, store, own={steps.baseline.subject: base}).alone(steps)
        Runner(suite, worker, store).alone(steps)
    with_own, without = worker.asked
    assert set(with_own.reused) == {
        "vae_decode"
    }  # of the stages that the baseline's own point timed
    assert with_own.reused["vae_decode"].timing.median_s == 2.0
    assert without.reused == {}


def test_a_reused_stage_is_part_of_the_video_on_both_sides():
    whole = record("steps-4-bf16", 4.0)
    reading = {
        s: Reused(timing=whole.timings[s], energy_j=7.0, peak_allocated=9) for s in ("vae_decode",)
    }
    parted = whole.model_copy(
        update={
            "timings": {"trajectory": whole.timings["trajectory"]},
            "against": whole.against.model_copy(
                update={
                    "timings": {"trajectory": whole.against.timings["trajectory"]},
                    "reused": reading,
                }
            ),
        }
    )
    (before,), (after,) = ablations([whole], None), ablations([parted], None)
    assert (after.video_s, after.speed_up) == (before.video_s, before.speed_up)
    assert PointRecord.model_validate_json(parted.model_dump_json()) == parted
    assert set(STAGES) == set(parted.timings) | set(parted.against.reused)


def test_a_step_beside_its_baseline_has_a_ratio_and_a_row():
    made = record("eager-bf16-cudnn", 4.0)
    timings, theirs = (
        {"denoise_step": made.timings["trajectory"]},
        {"denoise_step": made.against.timings["trajectory"]},
    )
    point, base = (
        load_point("tiny", "tiny-video", name).model_dump(mode="json")
        for name in ("eager-bf16-cudnn", "eager-bf16")
    )
    step = made.model_copy(
        update={
            "point": point,
            "timings": timings,
            "counts": {"denoise_step": count(linear_flops=10**9)},
            "against": made.against.model_copy(update={"timings": theirs, "point": base}),
        }
    )
    (row,) = ablations([step], None)
    assert row.speed_up.value == pytest.approx(2.5)
    assert (row.video_s, row.step_s.value) == (None, 4.0)
    assert ablations_table([row]).texts[0][1].startswith("2.5 (")
