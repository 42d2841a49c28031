"""What is said of recipes, from records whose truth is known."""

import pytest

from bench.core.load import load
from bench.core.specs.gpu import Price
from bench.core.specs.suite import Suite
from bench.measure.worker.process import JobFailed
from bench.report.tables.ablations import ablations_table, combinations_table, panel_table
from bench.report.write import write_report
from bench.results.store import SUITE, Store
from bench.run.jobs import Job, suite_jobs
from bench.run.runner import Runner
from bench.studies.ablations.gains import ablations, ablations_document, claims
from support.ablations import record
from support.records import environment

PRICE = Price(low=2.0, high=4.0, date="2026-01-01", source="a test")


def by_name(records):
    return {row.recipe: row for row in ablations(records, PRICE)}


def test_a_speed_up_is_of_whole_videos_and_of_what_an_hour_makes():
    row = by_name([record("compile-regional-bf16", 4.0)])["compile-regional-bf16"]
    assert row.speed_up.value == pytest.approx(12 / 6)
    assert row.speed_up.low < 2 < row.speed_up.high
    assert row.step_s.value == pytest.approx(4.0 / 20)
    clip_s = 33 / 8
    assert row.minutes_per_gpu_hour.value == pytest.approx(clip_s / 60 * 3600 / 6)
    assert row.usd_per_minute.value == pytest.approx(3.0 / row.minutes_per_gpu_hour.value)
    batch = by_name([record("batch-4-bf16", 30.0)])["batch-4-bf16"]
    assert batch.speed_up.value == pytest.approx(4 * 12 / 32)  # four videos for 32 seconds


def test_a_combination_stands_beside_the_product_of_its_parts():
    rows = by_name(
        [
            record("distilled-guidance-bf16", 4.0),
            record("steps-4-bf16", 1.0),
            record("fp8-bf16", 7.0),
            record("compile-regional-bf16", 8.0),
            record("fast-bf16", 0.4),
        ]
    )
    fast = rows["fast-bf16"]
    assert set(fast.parts) == {
        "distilled-guidance-bf16",
        "steps-4-bf16",
        "fp8-bf16",
        "compile-regional-bf16",
    }
    assert fast.product.value == pytest.approx(12 / 6 * 12 / 3 * 12 / 9 * 12 / 10)
    assert fast.speed_up.value == pytest.approx(12 / 2.4)
    assert not any(row.parts for name, row in rows.items() if name != "fast-bf16")


def test_without_one_of_its_parts_there_is_no_product():
    missing = by_name(
        [
            record("distilled-guidance-bf16", 4.0),
            record("steps-4-bf16", 1.0),
            record("fp8-bf16", 7.0, outcome="skipped_unsupported"),
            record("fast-bf16", 0.4),
        ]
    )["fast-bf16"]
    assert missing.parts == ()  # nothing changes `compile`
    skipped = by_name(
        [
            record("distilled-guidance-bf16", 4.0),
            record("steps-4-bf16", 1.0),
            record("compile-regional-bf16", 8.0),
            record("fp8-bf16", 7.0, outcome="skipped_unsupported"),
            record("fast-bf16", 0.4),
        ]
    )["fast-bf16"]
    assert "fp8-bf16" in skipped.parts
    assert skipped.product is None


def test_the_pareto_front_is_what_nothing_beats_in_both():
    rows = by_name(
        [
            record("fp8-bf16", 6.0, divergence=0.05),
            record("int8-weight-bf16", 7.0, divergence=0.1),
            record("steps-4-bf16", 1.0, divergence=0.9),
            record("batched-guidance-bf16", 9.0, divergence=0.0),
            record("eager-bf16-math", 11.0, divergence=0.0),
        ]
    )  # slower than the baseline
    assert {name for name, row in rows.items() if row.on_front} == {
        "fp8-bf16",
        "steps-4-bf16",
        "batched-guidance-bf16",
    }


def test_a_disturbed_baseline_wins_no_race():
    """Its median of 13 x the rest is known to no better than its range: the row stays, ranked
    nowhere."""
    disturbed = record("steps-4-bf16", 1.0, base=130.0)
    base = disturbed.against.timings["trajectory"]
    wild = base.model_copy(update={"median_s": 1.3, "low_s": 0.2, "high_s": 7.0, "stop": "timeout"})
    against = disturbed.against.model_copy(
        update={"timings": disturbed.against.timings | {"trajectory": wild}}
    )
    rows = by_name([disturbed.model_copy(update={"against": against}), record("fp8-bf16", 6.0)])
    assert "baseline's trajectory" in rows["steps-4-bf16"].unsteady
    assert {name for name, row in rows.items() if row.on_front} == {"fp8-bf16"}
    assert claims(list(rows.values()), "cuda")[0]["fastest"]["recipe"] == "fp8-bf16"
    assert "unsteady" in ablations_table([rows["steps-4-bf16"]]).texts[0][1]


def test_a_simulated_recipe_has_a_counted_bound_and_no_measured_gain():
    row = by_name([record("ternary-bf16", 11.0)])["ternary-bf16"]
    assert row.speed_up_provenance == "counted"
    assert not row.on_front
    assert "at most" in ablations_table([row]).texts[0][1]
    assert claims([row], "cuda")[0]["fastest"] is None


@pytest.mark.parametrize(
    ("seconds", "device", "verdict"),
    [(0.1, "cuda", "not reached"), (0.1, "cpu", "cannot tell: claimed of GPUs, measured on a CPU")],
)
def test_the_panels_claims_are_held_against_the_fastest(seconds, device, verdict):
    rows = ablations(
        [record("steps-4-bf16", seconds), record("fp8-bf16", 6.0)], None
    )  # decoding bounds it at six
    first, *_, last = claims(rows, device)
    assert first["verdict"] == verdict
    assert first["quality"].startswith("cannot tell")
    assert first["fastest"]["recipe"] == "steps-4-bf16"
    assert first["fastest"]["fewer_steps"] == 5
    assert first["fastest_without_fewer_steps"]["recipe"] == "fp8-bf16"
    assert last["verdict"] == (
        "reached in speed" if device == "cuda" else verdict
    )  # 5.7 times is over 5


def test_what_did_not_run_keeps_its_row_and_its_reason():
    rows = ablations(
        [record("fp8-bf16", 1.0, outcome="skipped_unsupported"), record("steps-4-bf16", 1.0)], None
    )
    cells = ablations_table(rows).texts
    assert cells[0][:2] == ["fp8-bf16", "skipped_unsupported: needs a card"]
    assert len({len(line) for line in cells}) == 1
    document = ablations_document(rows, "cuda")
    assert document["rows"][0]["speed_up"] is None
    speed_up = document["rows"][1]["speed_up"]
    assert (speed_up["value"], set(speed_up)) == (pytest.approx(4.0), {"value", "low", "high"})
    assert combinations_table(rows).rows == []
    assert len(cells) == 2
    assert len(panel_table(rows, "cuda").rows) == 3


def test_a_point_that_was_skipped_still_says_what_it_was_to_be_held_against(tmp_path):
    suite = load(Suite, "ablations-cpu")
    job: Job = next(j for j in suite_jobs(suite) if j.baseline is not None)
    asked = []

    class Refusing:
        environment = environment()

        def run(self, request, timeout_s, on_round):
            asked.append(request)
            raise JobFailed("skipped_unsupported", "needs a card")

    with Store(tmp_path) as store:
        made = Runner(suite, Refusing(), store).alone(job)
    assert asked[0].baseline.recipe.name == made.against.baseline == "eager-fp32"
    assert made.against.timings == {}
    assert made.against.divergence_missing == "skipped_unsupported: needs a card"
    assert (
        ablations_table(ablations([made], None)).texts[0][1] == "skipped_unsupported: needs a card"
    )


def test_the_report_has_its_ablations(tmp_path):
    suite = load(Suite, "ablations")
    (tmp_path / SUITE).write_text(suite.model_dump_json())
    with Store(tmp_path) as store:
        for made in (
            record("fp8-bf16", 6.0),
            record("steps-4-bf16", 1.0, divergence=0.0),
            record("sparse-bf16", 1.0, outcome="skipped_unsupported"),
        ):
            store.append_record(made)
    text = write_report(tmp_path).read_text()
    section = text.split("## Ablations")[1].split("## Measured points")[0]
    tables = [line for line in section.splitlines() if line.startswith("|")]
    width = tables[0].count("|")
    assert [line.count("|") for line in tables[:5]] == [width] * 5
    assert "skipped_unsupported: needs a card" in section
    assert "cannot tell" in section
    assert (tmp_path / "figures" / "ablations.svg").is_file()
