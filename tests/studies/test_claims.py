"""The ledger of claims: verdicts by hand, counted bounds, and no calibration that judges a card it
was not made on."""

import csv
from math import inf

import pytest

from bench.core.errors import UserError
from bench.core.load import names
from bench.core.quantity import Quantity
from bench.core.specs.claim import Claimed
from bench.report.tables.claims import verdicts
from bench.studies.claims.verdict import CANNOT_TELL, HOLDS, judge
from support.paths import ROOT
from support.studies.claims import evidence, ledger, one

FIVE = Claimed(value=5.0, unit="min")


RANGE = Claimed(low=10.0, high=36.0, unit="USD")


UNCALIBRATED = ledger([])


@pytest.mark.parametrize(
    ("claimed", "ours", "verdict"),
    [
        (FIVE, (5.2, 5.1, 5.3), HOLDS),
        (FIVE, (5.5, 5.5, 5.5), HOLDS),  # the end of what is accepted: 5 x 1.1
        (FIVE, (5.6, 5.6, 5.6), "off by 1.12x"),
        (FIVE, (5.2, 4.0, 6.5), CANNOT_TELL),  # a wide interval confirms nothing
        (FIVE, (5.6, 5.4, 5.8), CANNOT_TELL),  # reaches over 5.5
        (FIVE, (2.5, 2.4, 2.6), "off by 2x"),
        (FIVE, (0.4, 0.0, 0.4), "off by at least 12.5x"),  # at most 0.4
        (FIVE, (9.0, 0.0, 9.0), CANNOT_TELL),  # at most 9 says nothing of 5
        (FIVE, (50.0, 50.0, inf), "off by at least 10x"),
        (FIVE, (5.0, 5.0, inf), CANNOT_TELL),
        (RANGE, (20.0, 9.5, 39.0), HOLDS),  # 10 / 1.1 to 36 x 1.1
        (RANGE, (72.0, 60.0, 80.0), "off by 2x"),
        (RANGE, (4.8, 4.8, inf), CANNOT_TELL),
        (Claimed(low=100.0, unit="x"), (9686.0, 9686.0, 9686.0), HOLDS),
        (Claimed(high=5.0, unit="USD"), (0.08, 0.08, inf), CANNOT_TELL),
        (Claimed(high=5.0, unit="USD"), (10.0, 9.0, 11.0), "off by 2x"),
    ],
)
def test_verdicts_by_hand(claimed, ours, verdict):
    assert judge(claimed, Quantity(*ours, provenance="fitted"), 0.10) == verdict


def test_every_row_of_the_mission_is_there():
    ids = {j.id for j in UNCALIBRATED.judged}
    assert {f"A{i}" for i in range(2, 18)} | set(names("claims")) - {
        "sora-analysis",
        "published-latencies",
    } <= ids
    assert all(
        j.why and (j.verdict in (HOLDS, CANNOT_TELL) or j.is_off) for j in UNCALIBRATED.judged
    )
    assert sum(verdicts(UNCALIBRATED).values()) == len(UNCALIBRATED.judged)


def test_counted_claims_need_no_calibration():
    assert one("dit-step-flop").verdict == "off by 2x"  # multiply-accumulates printed as FLOP
    assert one("dit-step-flop").finding.ours == Quantity.exactly(2 * 524_538_298_368, "counted")
    document = one("image-as-llama-document")
    assert document.finding.ours.value == pytest.approx(
        2 * 524_538_298_368 * 250 / (2 * 70e9 * 1000)
    )
    assert document.verdict == "off by 1.87x"
    assert one("sora-minute-over-gpt4-document").verdict == HOLDS


@pytest.mark.parametrize(
    ("part", "verdict"),
    [
        ("parameters of DiT-XL/2", HOLDS),
        ("training budget of DiT-XL/2", "off by 2.42x"),  # 2.4e21 over 1e21
        ("one step of a one-minute Sora video", "off by 12.2x"),  # 3.41e16 over the printed 2.8e15
        ("video per H100-hour", "off by at least 12x"),  # at most 0.418
        ("training of DiT-XL/2 on one H100", "off by at least 2.36x"),
        ("generated minutes, as the other article sums", "off by 1.4x"),
        ("H100-equivalents Meta said it would own", CANNOT_TELL),  # an input: ours would be theirs
        ("frames of a minute of video", HOLDS),
    ],
)
def test_the_chain_without_a_calibration(part, verdict):
    (j,) = [j for j in ledger(["sora-analysis"]).judged if j.quantity == part]
    assert j.verdict == verdict


def test_the_chain_is_judged_by_an_h100_and_by_no_other_card():
    def minutes(e):
        return next(j for j in ledger(["A11"], e).judged)

    held = minutes(evidence("h100-sxm", 3600 / 0.19))  # 0.19 minutes an hour
    assert held.verdict == "off by 26.5x"
    assert held.finding.ours.value == pytest.approx(0.19)
    assert held.finding.ours.provenance == "fitted"
    for gpu in ("cpu", "h100-pcie"):
        other = minutes(evidence(gpu, 3600 / 5.03))
        assert other.verdict == "off by at least 12x"  # as without a calibration
        assert other.finding.ours == Quantity.at_most(pytest.approx(0.418, abs=5e-4), "counted")
        assert f"the calibration is of {gpu}" in other.why
        assert other.finding.command.startswith(
            "on h100-sxm: ldt-bench run h100, then ldt-bench claims --calibration "
        )


def test_with_an_h100_only_inputs_other_cards_and_unlike_recipes_stay_open():
    found = ledger([], evidence("h100-sxm", 3600 / 0.19)).judged
    fleet = next(j for j in found if j.quantity == "fleet that serves, the 10.7 M")
    assert fleet.finding.ours.value == pytest.approx(14.95e6 / (0.19 * 24) * 8)
    assert fleet.verdict == "off by 36.4x"
    for j in found:
        if j.finding.ours is None:
            assert any(
                words in j.why
                for words in (
                    "put in by hand",
                    "not in configs/gpus",
                    "none of them such",
                    "the calibration is of h100-sxm, which does not judge it",
                )
            ), j


@pytest.mark.parametrize(
    "name", ["compute-density-h100", "dollars-per-minute", "L0020", "lcm-4-steps"]
)
@pytest.mark.parametrize("e", [None, evidence("cpu", 60.0)])
def test_no_calibration_of_the_card_cannot_tell_and_says_what_would(name, e):
    j = one(name, e)
    assert j.verdict == CANNOT_TELL
    assert "needs a measurement on h100-sxm" in j.why
    assert "ldt-bench claims --calibration results/h100-sxm" in j.finding.command


def test_cost_is_bounded_by_the_datasheet_and_judged_by_the_card():
    bound = one("dollars-per-minute")
    assert bound.finding.ours.low == pytest.approx(
        1.99 / 0.41789, rel=1e-4
    )  # USD an hour over minutes an hour
    assert bound.finding.ours.high == inf
    assert (
        one("dollars-per-minute", evidence("h100-sxm", 3600 / 0.15)).verdict == HOLDS
    )  # 3 / 0.15 = 20 USD
    assert (
        one("dollars-per-minute", evidence("h100-sxm", 3600 / 0.025)).verdict == "off by 3.33x"
    )  # 120 USD over 36


def test_utilisation():
    step = 3.4094e16  # FLOP, ANCHORS: 34.09 PFLOP
    j = one("compute-density-h100", evidence("h100-sxm", step * 250 / 0.45 / 989.4e12 / 0.9))
    assert j.finding.ours.value == pytest.approx(0.45, rel=1e-3)
    assert j.verdict == "off by 2x"


def test_speedup_by_steps_is_bounded_by_counting_and_judged_by_the_card():
    ours = one("lcm-4-steps").finding.ours
    assert (ours.low, ours.high) == (1.0, 62.5)  # 250 / 4
    assert 1 < ours.value < 62.5  # decode and text do not shrink
    # 0.9 of the time in 250 steps: 1 / (0.9 x 4 / 250 + 0.1) = 8.74
    j = one("lcm-4-steps", evidence("h100-sxm", 1000.0, spread=0.001))
    assert j.finding.ours.value == pytest.approx(8.741, rel=1e-3)
    assert j.verdict == "off by 1.14x"
    assert one("five-minutes-to-one", evidence("h100-sxm", 1000.0)).verdict == HOLDS


def test_an_extrapolated_estimate_is_widened_by_its_worst_held_out_error_or_does_not_judge():
    near = evidence("h100-sxm", 3600 / 0.15, provenance="extrapolated")
    ours = one("dollars-per-minute", near).finding.ours
    assert (ours.low, ours.high) == (
        pytest.approx(20 / 1.02 / 1.25),
        pytest.approx(20 * 1.02 * 1.25),
    )
    assert ours.provenance == "extrapolated"
    blind = one(
        "dollars-per-minute",
        evidence("h100-sxm", 3600 / 0.15, provenance="extrapolated", heldout=False),
    )
    assert blind.verdict == CANNOT_TELL
    assert blind.finding.ours.value == pytest.approx(20)


def test_published_rows_are_judged_by_a_recipe_like_theirs():
    bf16 = ("eager-bf16-cudnn",)
    assert (
        one("L0674", evidence("h100-sxm", 112.4 / (0.9 * 50 / 250 + 0.1), recipes=bf16)).verdict
        == HOLDS
    )
    assert (
        one("L0674", evidence("h100-sxm", 224.8 / (0.9 * 50 / 250 + 0.1), recipes=bf16)).verdict
        == "off by 2x"
    )
    compiled = one("L0675", evidence("h100-sxm", 100.0, recipes=bf16))
    assert compiled.verdict == CANNOT_TELL
    assert "published in bf16, compiled; calibrated recipes: eager-bf16-cudnn" in compiled.why
    step = one("L0680", evidence("a100-80gb", 4.07 * 250 / 0.9, recipes=bf16))
    assert step.finding.ours.value == pytest.approx(4.07)  # a step alone, no decode
    assert step.claimed.value == 4.07
    assert step.verdict == HOLDS


def test_every_row_of_the_table_is_a_claim_or_left_out_with_a_reason():
    with (ROOT / "configs/reference/published_latency.csv").open(newline="") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    found = ledger(["published-latencies"])
    assert {j.id for j in found.judged} | {id_ for id_, _ in found.left_out} == set(rows)
    assert {j.id for j in found.judged}.isdisjoint(id_ for id_, _ in found.left_out)
    for j in found.judged:
        row = rows[j.id]
        assert (row["n_gpus"], row["batch"]) == ("1", "1")
        assert row["scope"] != "unstated"
        assert j.claimed.value == float(row["latency_s"] or row["s_per_step"])
        assert j.verdict == CANNOT_TELL  # nobody measured
    assert "several" not in dict(found.left_out)["L0772"]
    assert "from memory of defaults" in dict(found.left_out)["L0772"]
    with pytest.raises(UserError, match="left out of its table: 8 GPUs"):
        ledger(["L0003"])
