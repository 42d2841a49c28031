"""The pencil estimate: every printed figure comes out of its own assumptions, and the corrections
are what they say."""

import itertools
import math

import pytest

from bench.calibrate.calibration import Reference
from bench.core.quantity import Quantity
from bench.studies.pencil.analytic import chain
from bench.studies.pencil.assumptions import Assumptions
from bench.studies.pencil.counts import corrected_counts
from bench.studies.pencil.demand import Demand, Headroom, fleet
from bench.studies.pencil.waterfall import guided_minutes, waterfall
from support.pencil import ROWS, an_estimate, row


def test_the_ids_are_a1_to_a17():
    assert list(dict.fromkeys(r.id for r in ROWS)) == [f"A{i}" for i in range(1, 18)]


@pytest.mark.parametrize("r", ROWS, ids=lambda r: f"{r.id} {r.quantity}")
def test_every_printed_value_is_reproduced(r):
    """Within 1.5 %, or equal once rounded as the source rounds, and then the note says so."""
    if r.printed is not None:
        assert "differs" not in r.agreement
        if abs(r.computed / r.printed - 1) > 0.015:
            assert "round" in r.note


@pytest.mark.parametrize(
    ("id_", "part", "printed", "computed"),
    [
        ("A3", "one H100", 12, 1e21 / 989.4e12 / 86_400),
        ("A4", "DiT image", 131e12, 524e9 * 250),
        ("A8", "low", 1.1e25, 1e21 * 30 * 4 * 180 / 2),
        ("A9", "low", 4211, 1.08e25 / (989.4e12 * 30 * 86_400)),
        ("A9", "high", 10_528, 2.7e25 / (989.4e12 * 30 * 86_400)),
        ("A10", "step", 2.8e15, 524e9 * 30 * 180),
        ("A11", "per H100-hour", 5.03, 989.4e12 * 3600 / 707.4e15),
        ("A12", "low", 15.3e6, 1.08e25 / 707.4e15),
        ("A12", "high", 38.1e6, 2.7e25 / 707.4e15),
        ("A16", "busy, right sum", 124.6e3, 14.95e6 / 120),
        ("A16", "busy, the 10.7 M", 89e3, 10.7e6 / 120),
        ("A16", "serves, the 10.7 M", 720e3, 10.7e6 / 120 * 8),
        ("A16", "serves, right sum", None, 14.95e6 / 120 * 8),
    ],
)
def test_by_hand(id_, part, printed, computed):
    assert row(id_, part).printed == printed
    assert row(id_, part).computed == pytest.approx(computed)


def test_misprints_are_pointed_out():
    assert "misprints 1.31e12" in row("A4", "image").note
    assert "misprints 7.08e15" in row("A10", "a one-minute Sora video").note
    assert "wrong sum" in row("A16", "other article").note
    assert "997 k" in row("A16", "serves, right sum").note


def test_corrections():
    c = corrected_counts()
    assert c.dit_step == 2 * 524_538_298_368
    assert row("A11", "video").corrected == pytest.approx(
        0.418, abs=0.0005
    )  # 12.05 times less than the pencil's
    assert row("A2", "budget").corrected == pytest.approx(3 * 2 * 524.538e9 * 768e6, rel=1e-5)
    assert row("A10", "step").corrected / row("A10", "step").computed == pytest.approx(
        12.05, abs=0.005
    )
    assert row("A16", "serves, right sum").corrected == pytest.approx(
        14.95e6 / (24 * 0.41789) * 8, rel=1e-4
    )


def test_a_row_has_one_unit():
    step, same = (r for r in ROWS if r.id == "A2" and "step" in r.quantity)
    assert (step.unit, step.corrected) == ("MAC", step.computed)
    assert (same.unit, same.corrected) == ("FLOP", 2 * step.computed)


def test_fleet():
    assert fleet(14.95e6, 5.0) == pytest.approx(124_583, abs=1)
    assert Headroom().factor == 8
    assert Demand().minutes_per_day == pytest.approx(14.95e6)


REFERENCE = Reference(
    gpu="h100-sxm",
    gemm_ceiling_flops_per_s=800e12,
    denoise_minutes=0.2,
    minutes=Quantity(0.19, 0.17, 0.21),
    guided_minutes=0.096,
    provenance="extrapolated",
    warnings=[],
)


@pytest.mark.parametrize(
    ("reference", "estimate"),
    [(None, None), (REFERENCE, None), (REFERENCE, an_estimate())],
    ids=["pencil", "calibrated", "by class"],
)
def test_the_waterfall_multiplies_out_exactly(reference, estimate):
    *factors, extra = waterfall(Assumptions(), reference, estimate)
    assert factors[0].value == pytest.approx(989.4e12 * 3600 / 708e15)
    assert f"{factors[0].value:.3g}" == "5.03"  # as printed, and as README and report say
    for before, bar in itertools.pairwise(factors):
        assert bar.value == pytest.approx(before.value * bar.multiplier, rel=1e-12)
    product = factors[0].value * math.prod(b.multiplier for b in factors)
    assert product == pytest.approx(factors[-1].value, rel=1e-12)
    assert extra.extra
    assert not any(b.extra for b in factors)
    assert extra.value == pytest.approx(factors[-1].value * extra.multiplier, rel=1e-12)


def test_the_waterfall_ends_at_the_prediction_and_its_counted_factors_are_the_missions():
    bars = waterfall(Assumptions(), REFERENCE)
    by_name = {b.factor: b for b in bars}
    assert by_name["a multiply-accumulate is 2 FLOPs"].multiplier == 0.5
    # Linear part 0.99 of the pencil's, so a little more video; attention takes it down to 0.418 at
    # 100 %.
    assert by_name[
        "per-token parameters: the preset's own linear layers"
    ].multiplier == pytest.approx(1.01, abs=0.005)
    assert by_name["attention is quadratic in tokens"].value == pytest.approx(0.418, abs=0.0005)
    assert bars[-2].value == 0.19
    assert bars[-1].value == pytest.approx(0.096)
    assert {b.provenance for b in bars} == {"claimed", "counted", "measured", "extrapolated"}


def test_calibrated_values_turn_with_the_minutes():
    rows = chain(Assumptions(), Demand(), Headroom(), Quantity(0.2, 0.1, 0.4))
    (serving,) = [r for r in rows if "serves, right sum" in r.quantity]
    assert serving.calibrated.value == pytest.approx(14.95e6 / (0.2 * 24) * 8)
    assert serving.calibrated.low == pytest.approx(14.95e6 / (0.4 * 24) * 8)
    (minutes,) = [r for r in rows if r.id == "A11"]
    assert minutes.calibrated == Quantity(0.2, 0.1, 0.4)
    assert all(r.calibrated is None for r in ROWS)


def test_the_waterfall_by_class_ends_at_the_prediction():
    bars, estimate = waterfall(Assumptions(), REFERENCE, an_estimate()), an_estimate()
    values = {b.factor: b.value for b in bars}
    ideal = (
        3600 / values["GEMM ceiling of this h100-sxm instead of the H100's datasheet"]
    )  # seconds, all at 800e12
    c = corrected_counts()
    attention = c.sora["attention"] * 250 / 800e12
    assert ideal == pytest.approx(c.sora_step * 250 / 800e12)
    assert values["utilisation of the linear layers"] == pytest.approx(3600 / (1500 + attention))
    assert values["utilisation of attention"] == pytest.approx(3600 / (1500 + 15_000))
    assert values["norms, elementwise work, launches"] == pytest.approx(3600 / 18_000)
    assert values["VAE decode"] == pytest.approx(3600 / 18_900)
    assert (
        values["text encoder"] == bars[-2].value == estimate.minutes_per_gpu_hour.value
    )  # `predict`, exactly
    assert (
        bars[-1].value
        == pytest.approx(guided_minutes(estimate, Assumptions()))
        == pytest.approx(3600 / 36_906)
    )
