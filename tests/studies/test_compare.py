"""Verdicts on synthetic pairs at stated error rates, refusals, histories, and a real result against
a copy of itself."""

import json

import numpy as np
import pytest

from bench.core.errors import UserError
from bench.measure.timing.sampling import summarise
from bench.report.tables.comparison import comparison_document, comparison_markdown
from bench.results.records import PointRecord, SentinelReading
from bench.studies.compare.history import compare_history
from bench.studies.compare.pair import compare
from bench.studies.compare.shared import THRESHOLD
from bench.studies.compare.spread import median_error
from bench.studies.compare.verdict import judge
from support.records import point_record
from support.studies.compare import result, run_at, timing, verdicts

STAGES = 16


POINT = point_record()


def test_the_rule():
    assert judge(1.0, 0.97, 1.03, 0.05) == "SAME"
    assert judge(1.1, 1.06, 1.14, 0.05) == judge(1.1, 1.01, 1.2, 0.05) == "SLOWER"
    assert judge(0.9, 0.85, 0.99, 0.05) == "FASTER"
    assert (
        judge(1.04, 1.01, 1.07, 0.05) == "UNCLEAR"
    )  # surely slower, not surely by what is worth a look
    assert judge(1.1, 0.99, 1.2, 0.05) == "UNCLEAR"


def test_nothing_changed_is_hardly_ever_called_a_change():
    """Fewer than 5 % of comparisons, let alone of stages, with autocorrelated samples and sessions
    that differ."""
    rng = np.random.default_rng(1)
    pairs = [compare(result(rng), result(rng)) for _ in range(40)]
    assert sum(v in ("SLOWER", "FASTER") for v in verdicts(pairs)) <= 2  # of 640
    assert sum(p.verdict == "SLOWER" for p in pairs) <= 2  # of 40
    assert sum(v == "SAME" for v in verdicts(pairs)) > 100


@pytest.mark.parametrize(("factor", "verdict"), [(1.10, "SLOWER"), (1 / 1.10, "FASTER")])
def test_ten_per_cent_on_every_stage(factor, verdict):
    rng = np.random.default_rng(2)
    pairs = [compare(result(rng), result(rng, factor)) for _ in range(20)]
    assert np.mean([v == verdict for v in verdicts(pairs)]) > 0.9
    assert all(p.typical.verdict == verdict for p in pairs)
    assert np.median([c.ratio for p in pairs for c in p.changes]) == pytest.approx(factor, rel=0.01)
    assert {p.verdict for p in pairs} <= ({"SLOWER"} if factor > 1 else {"FASTER", "UNCLEAR"})


def test_one_stage_of_many_is_found_and_the_others_are_not_blamed():
    rng = np.random.default_rng(3)
    factors = np.where(np.arange(STAGES) == 5, 1.2, 1.0)
    pairs = [compare(result(rng), result(rng, factors)) for _ in range(10)]
    assert all(p.changes[5].verdict == "SLOWER" and p.verdict == "SLOWER" for p in pairs)
    assert sum(c.verdict == "SLOWER" for p in pairs for c in p.changes) <= 11


def test_a_machine_that_moved_is_not_the_codes_fault():
    """The probes, which run no code of ours, moved as much; a stage in a hundred moved by more than
    them, by chance."""
    rng = np.random.default_rng(4)
    pairs = [compare(result(rng), result(rng, machine=1.15)) for _ in range(10)]
    assert sum(v == "SLOWER" for v in verdicts(pairs)) <= 2  # of 160
    assert all(p.typical.verdict == "UNCLEAR" for p in pairs)
    assert np.mean([p.drift for p in pairs]) == pytest.approx(1.15, rel=0.01)


def test_the_sentinel_around_a_point_speaks_for_it_before_the_probes_do():
    def with_sentinel(records, seconds):
        return [
            r.model_copy(update={"sentinel": SentinelReading(before_s=seconds, after_s=seconds)})
            if r.fingerprint == "p3"
            else r
            for r in records
        ]

    rng = np.random.default_rng(5)
    factors = np.where(np.arange(STAGES) == 3, 1.3, 1.0)
    assert compare(result(rng), result(rng, factors)).changes[3].verdict == "SLOWER"
    pair = compare(with_sentinel(result(rng), 0.01), with_sentinel(result(rng, factors), 0.013))
    assert pair.changes[3].verdict == "UNCLEAR"
    assert pair.changes[3].drift == pytest.approx(1.3)


def test_without_probes_and_with_few_stages_the_floor_is_assumed_and_said_to_be():
    rng = np.random.default_rng(6)
    pair = compare(result(rng, stages=2, probes=0), result(rng, stages=2, probes=0))
    assert pair.floor_from.startswith("assumed")
    assert pair.typical is None
    assert "no ceilings" in pair.control


def test_an_unstable_stage_is_unclear_whatever_its_ratio():
    rng = np.random.default_rng(7)
    a, b = result(rng), result(rng, 3.0)
    wild = summarise([0.01, 0.02, 0.05, 0.01, 0.03], [0.01], "timeout", True)
    b[1] = b[1].model_copy(
        update={"timings": {"denoise_step": wild}, "outcome": "unstable", "reason": "wild"}
    )
    pair = compare(a, b)
    assert [c.verdict for c in pair.changes[:2]] == ["UNCLEAR", "SLOWER"]
    assert any("b: tiny tiny-clip r0: unstable" in w for w in pair.warnings)


def test_seeded():
    a, b = result(np.random.default_rng(8)), result(np.random.default_rng(9))
    assert compare(a, b) == compare(a, b)


def test_the_error_of_a_median_knows_that_neighbours_agree():
    rng = np.random.default_rng(10)
    alone = np.mean([median_error(timing(0.05, rng, n=60, noise=0.01), rng) for _ in range(30)])
    shuffled = np.mean(
        [
            median_error(
                summarise(
                    list(rng.permutation(timing(0.05, rng, n=60).samples_s)),
                    [1.0],
                    "converged",
                    True,
                ),
                rng,
            )
            for _ in range(30)
        ]
    )
    assert alone > 1.3 * shuffled
    assert median_error(summarise([1.0, 1.1, 1.2], [1.0], "timeout", True), rng) == pytest.approx(
        0.4 * np.log(1.2)
    )


def other_name(record) -> dict:
    """Fields that make it another point."""
    named = {"recipe": record.recipe + "x"} if isinstance(record, PointRecord) else {}
    return {"fingerprint": record.fingerprint + "x", **named}


def test_a_point_whose_definition_changed_is_compared_under_its_name():
    """It had no stage in common once."""
    rng = np.random.default_rng(13)
    a = result(rng)
    b = [r.model_copy(update={"fingerprint": r.fingerprint + "x"}) for r in result(rng)]
    assert len(compare(a, b).changes) == len(compare(a, a).changes)


def test_refusals():
    rng = np.random.default_rng(11)
    a = result(rng)
    with pytest.raises(
        UserError, match=r"environments differ: torch 2.13.0 / 2.14.0; .*--allow-different"
    ):
        compare(a, result(rng, torch="2.14.0"))
    with pytest.raises(UserError, match="threads 2 / 4"):
        compare(a, result(rng, threads=4))
    assert compare(a, result(rng, threads=4), allow_different=True).warnings == [
        "the environments differ: threads 2 / 4"
    ]
    assert compare(a, result(rng, code_version="later")).code_b == "later"
    with pytest.raises(UserError, match="--threshold 2 is not a share"):
        compare(a, a, threshold=2)
    with pytest.raises(UserError, match="no measured stage of a point in common"):
        compare(a, [r.model_copy(update=other_name(r)) for r in a])


def test_points_of_one_side_alone_are_listed():
    rng = np.random.default_rng(12)
    pair = compare(result(rng), result(rng, stages=STAGES - 1))
    assert pair.only_a == [
        {
            "point": f"tiny tiny-clip r{STAGES - 1}",
            "stage": "denoise_step",
            "why": "not measured in the other",
        }
    ]
    assert pair.only_b == []


def test_threshold():
    rng = np.random.default_rng(13)
    a, b = result(rng, session=0.001, n=100), result(rng, 1.02, session=0.001, n=100)
    assert compare(a, b).threshold == THRESHOLD["cpu"]
    assert compare(a, b).verdict == "SAME"
    assert compare(a, b, threshold=0.01).verdict == "SLOWER"


def test_document_and_markdown():
    rng = np.random.default_rng(14)
    pair = compare(result(rng), result(rng, 1.2))
    document = json.loads(json.dumps(comparison_document(pair, ["A"], "B"), allow_nan=False))
    assert {"point", "stage", "a", "b", "ratio", "low", "high", "verdict"} <= set(
        document["points"][0]
    )
    assert document["verdict"] == "SLOWER"
    assert document["points"][0]["ratio"] == pytest.approx(
        document["points"][0]["b"] / document["points"][0]["a"]
    )
    text = comparison_markdown(pair)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + STAGES + 1
    assert {row.count("|") for row in rows} == {8}
    assert text.startswith("**SLOWER: 16 SLOWER")


def test_two_cards_of_one_kind_are_compared_and_named():
    def on(records, card):
        return [
            r.model_copy(
                update={"environment": r.environment.model_copy(update={"device_uuid_hash": card})}
            )
            for r in records
        ]

    rng = np.random.default_rng(20)
    a, b = on(result(rng), "aaaa"), on(result(rng), "bbbb")
    assert (
        "measured on 2 cards of one kind: aaaa, bbbb; a ratio holds what those differ by"
        in compare(a, b).warnings
    )
    assert compare(a, on(result(rng), "aaaa")).warnings == []
    runs = [on(run_at(day, rng), card) for day, card in ((1, "aaaa"), (2, "bbbb"), (3, "aaaa"))]
    assert (
        "measured on 2 cards of one kind: aaaa, bbbb"
        in compare_history(on(run_at(9, rng), "aaaa"), runs).warnings[0]
    )


def test_other_work_under_the_same_name_is_said():
    a, b = (result(np.random.default_rng(seed)) for seed in (0, 1))
    point = b[-1]
    counts = {
        stage: count.model_copy(update={"linear_flops": 2 * count.linear_flops})
        for stage, count in point.counts.items()
    }
    heavier = [*b[:-1], point.model_copy(update={"counts": counts})]
    said = [line for line in compare(a, heavier).warnings if "counted FLOPs" in line]
    assert said
    assert all(line.endswith("counted FLOPs +100.0%") for line in said)
    assert not any("counted FLOPs" in line for line in compare(a, b).warnings)
