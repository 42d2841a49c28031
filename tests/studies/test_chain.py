"""What a calibration makes of the chain: training rows, A13 with time, sensitivity; and the command
that shows them."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest

from bench.calibrate.training import TrainingCost, training_cost
from bench.core.load import load, load_point
from bench.core.quantity import Quantity
from bench.core.specs.gpu import Gpu
from bench.count.point import count_point
from bench.report.chain import Analysis, analyse, analysis_document
from bench.report.tables.pencil import analysis_tables
from bench.studies.pencil.analytic import chain
from bench.studies.pencil.assumptions import Assumptions
from bench.studies.pencil.counts import corrected_counts
from bench.studies.pencil.cross_model import (
    GPT4,
    LLAMA,
    SORA,
    TOKENS,
    TOKENS_BATCHED,
    Rates,
    cross_model,
)
from bench.studies.pencil.demand import Demand, Headroom, fleet
from bench.studies.pencil.measured import MeasuredChain
from bench.studies.pencil.sensitivity import calibrated_base, pencil_base, sensitivity
from support.pencil import an_estimate, row

A, DEMAND, HEADROOM = Assumptions(), Demand(), Headroom()
H100 = load(Gpu, "h100-sxm")


def measured(training=TrainingCost(Quantity(1.25, 1.0, 1.5), ("p",)), missing=None):
    estimate = an_estimate()
    return MeasuredChain(
        gpu="h100-sxm",
        minutes=estimate.minutes_per_gpu_hour,
        sora_step_s=estimate.step_s,
        dit_step_s=Quantity(0.004, 0.003, 0.005),
        dit_image_s=Quantity(1.1, 1.0, 1.25),
        training=training,
        training_missing=missing,
        sora=estimate,
        warnings=[],
        units_s={SORA: (Quantity(18e3, 16e3, 20e3), "extrapolated")},
        clips=[],
        ceilings=Rates("measured", 800e12, 3e12),
        card=H100,
    )


def calibrated(rows, id_, part=""):
    return next(r.calibrated for r in rows if r.id == id_ and part in r.quantity)


def test_training_rows_by_hand():
    rows, c = chain(A, DEMAND, HEADROOM, measured=measured()), corrected_counts()
    # A3: 768 M images x 3 forwards' FLOPs x 4 ms a forward x 1.25, in days.
    assert calibrated(rows, "A3", "one H100").value == pytest.approx(
        768e6 * 3 * 0.004 * 1.25 / 86_400
    )
    assert calibrated(rows, "A3", "one H100").low == pytest.approx(768e6 * 3 * 0.003 * 1.0 / 86_400)
    # A5: that many seconds over 1.1 s an image; the interval is widest where the two pull apart.
    a5 = calibrated(rows, "A5")
    assert a5.value == pytest.approx(768e6 * 3 * 0.004 * 1.25 / 1.1)
    assert a5.high == pytest.approx(768e6 * 3 * 0.005 * 1.5 / 1.0)
    # A9: half the samples are videos of 72 s a forward, half images of a share of it.
    sample = 3 * 1.25 * 72 * (0.5 + 0.5 * c.sora_image_step / c.sora_step)
    assert calibrated(rows, "A9", "low").value == pytest.approx(768e6 * 4 * sample / (30 * 86_400))
    assert calibrated(rows, "A9", "high").value == pytest.approx(
        768e6 * 10 * sample / (30 * 86_400)
    )
    # A12: the same seconds over those of a minute of video.
    assert calibrated(rows, "A12", "low").value == pytest.approx(
        768e6 * 4 * sample / (3600 / (3600 / 18_903))
    )
    assert calibrated(rows, "A11") == measured().minutes
    assert calibrated(rows, "A8") is None  # FLOPs: no time in it


def test_at_the_datasheet_the_calibrated_rows_are_the_corrected_ones():
    """A card at 100 % whose training FLOPs cost as much as others: nothing is left to correct."""
    c, ideal = (
        corrected_counts(),
        measured(TrainingCost(Quantity.exactly(1.0), ("p",))),
    )
    step, dit = c.sora_step / A.h100_flops_per_s, c.dit_step / A.h100_flops_per_s
    ideal = MeasuredChain(
        **{
            **vars(ideal),
            "sora_step_s": Quantity.exactly(step),
            "dit_step_s": Quantity.exactly(dit),
            "dit_image_s": Quantity.exactly(250 * dit),
            "minutes": Quantity.exactly(3600 / (250 * step)),
        }
    )
    for r in chain(A, DEMAND, HEADROOM, measured=ideal):
        if r.calibrated is not None:
            assert r.calibrated.value == pytest.approx(r.corrected), r.quantity


def test_without_a_training_step_the_rows_say_what_would_supply_it():
    rows = chain(A, DEMAND, HEADROOM, measured=measured(None, "no train_step; run chain-gpu"))
    for id_ in ("A3", "A5", "A9", "A12"):
        assert calibrated(rows, id_) is None
        assert any(
            "not calibrated: no train_step; run chain-gpu" in r.note for r in rows if r.id == id_
        )
    assert calibrated(rows, "A11") is not None
    assert not any("not calibrated" in r.note for r in chain(A, DEMAND, HEADROOM))


def stage(point, name, seconds, flops):
    return SimpleNamespace(point=point, stage=name, measured_s=seconds, flops=flops, subject=None)


def test_the_cost_of_a_training_flop_is_what_was_planted():
    stages = [
        stage("a", "denoise_step", 1.0, 100),
        stage("a", "train_step", 4.5, 300),  # 1.5
        stage("b", "denoise_step", 4.0, 200),
        stage("b", "train_step", 6.0, 300),  # guided: per FLOP, so 1.0
        stage("c", "train_step", 9.0, 1),
    ]

    def of(inference, trained):
        return SimpleNamespace(
            stages=inference, recipe="r", training=trained and SimpleNamespace(stages=trained)
        )

    cost, missing = training_cost(
        of(
            [s for s in stages if s.stage == "denoise_step"],
            [s for s in stages if s.stage == "train_step"],
        )
    )
    assert missing is None
    # 90 % of one more: 3 degrees of freedom, t = 2.353; variance (2 x 0.2^2 + 2 x (ln 1.5 / 2)^2) /
    # 3.
    half = 2.353 * ((2 * 0.04 + 2 * (math.log(1.5) / 2) ** 2) / 3 * 1.5) ** 0.5
    assert cost.ratio.as_dict() == pytest.approx(
        {"value": 1.5**0.5, "low": 1.5**0.5 * math.exp(-half), "high": 1.5**0.5 * math.exp(half)},
        rel=1e-3,
    )
    assert cost.points == ("a", "b")
    assert (
        training_cost(of(stages, None))[0] == cost
    )  # an older calibration has them among the others
    assert "run chain-cpu" in training_cost(of(stages[:1], None))[1]
    assert "denoise_step was timed too" in training_cost(of([], stages[-1:]))[1]


def test_intervals_of_products_and_quotients():
    a, b = Quantity(2.0, 1.0, 3.0), Quantity(4.0, 2.0, 8.0)
    assert a.times(b).scaled(10) == Quantity(80, 20, 240)
    assert a.times(10) == Quantity(20, 10, 30)
    assert a.ratio(b) == Quantity(0.5, 0.125, 1.5)
    assert b.inverse(8.0) == Quantity(2.0, 1.0, 4.0)
    assert a + b == Quantity.sum([a, b]) == Quantity(6.0, 3.0, 11.0)
    assert a.widened(2.0) == Quantity(2.0, 0.5, 6.0)


def test_a13_with_time():
    rows = {r.unit.name: r for r in cross_model(A, H100)}
    c = corrected_counts()
    assert rows[SORA].unit.flops == 250 * c.sora_step
    assert rows[SORA].unit.seconds(rows[SORA].datasheet) == pytest.approx(
        3600 / row("A11", "video").corrected
    )
    assert rows[LLAMA].unit.flops == row("A13", "Llama").computed == 140e12
    assert rows[LLAMA].unit.seconds(rows[LLAMA].datasheet) == pytest.approx(1000 * 140e9 / 3.35e12)
    assert rows[GPT4].unit.flops == row("A13", "GPT-4").computed
    tokens = rows[TOKENS].unit
    assert tokens.flops == pytest.approx(row("A13", "token by token").computed, rel=1e-4)
    assert row("A13", "token by token").computed < row("A13", "Sora").corrected / 100
    bounds = {name: r.unit.bound(r.datasheet) for name, r in rows.items()}
    assert {name for name, bound in bounds.items() if bound == "compute-bound"} == {
        SORA,
        "DiT-XL/2, one 512x512 image",
    }
    # Clips at once share the weights and not the cache: 6 fit beside 16 GB of weights, 9.76 GB
    # each.
    assert "6 clips" in rows[TOKENS_BATCHED].unit.note
    assert rows[TOKENS_BATCHED].unit.flops == pytest.approx(tokens.flops)
    assert tokens.bytes / 6 < rows[TOKENS_BATCHED].unit.bytes < tokens.bytes
    # A part is bound by whichever takes longer: between the two rates the bound turns at FLOPs over
    # bytes.
    balance = tokens.parts[1].flops / tokens.parts[1].bytes
    assert tokens.bound(Rates("slow multipliers", 0.9 * balance * 1e12, 1e12)) == "compute-bound"
    assert tokens.bound(Rates("slow memory", 1.1 * balance * 1e12, 1e12)) == "bandwidth-bound"


@pytest.mark.parametrize("model", ["sora-20b", "dit-xl-2"])
def test_bytes_in_closed_form_are_the_traced_ones(model):
    workload = {"sora-20b": "sora-1min-512", "dit-xl-2": "image-512"}[model]
    unit = {u.unit.name: u.unit for u in cross_model(A, H100)}[
        {"sora-20b": SORA, "dit-xl-2": "DiT-XL/2, one 512x512 image"}[model]
    ]
    traced = count_point(load_point(model, workload, "eager-bf16")).stages["forward"]
    assert (unit.parts[0].flops, unit.parts[0].bytes) == (traced.flops, traced.bytes_modelled_min)


def test_dollars_are_those_of_the_card_that_was_timed():
    ceilings = Rates("measured", 100e12, 1e12)
    on_h100 = {r.unit.name: r for r in cross_model(A, H100, ceilings, H100, measured().units_s)}
    low, high = H100.price_usd_per_hour.low / 3600, H100.price_usd_per_hour.high / 3600
    assert on_h100[SORA].usd.as_dict() == {
        "value": pytest.approx(18e3 * (low + high) / 2),
        "low": pytest.approx(16e3 * low),
        "high": pytest.approx(20e3 * high),
    }
    assert on_h100[LLAMA].usd.low == pytest.approx(1000 * 140e9 / 1e12 * low)
    assert all(
        r.usd is None for r in cross_model(A, H100, ceilings, None)
    )  # a device without a price
    in_fp32 = cross_model(A, H100, Rates("measured", 1e12, 1e12, "fp32"), None)[0]
    assert in_fp32.ceilings[1].bytes == 2 * in_fp32.unit.bytes


def base():
    fit = SimpleNamespace(
        parameters={
            "linear_efficiency": SimpleNamespace(value=0.8, low=0.7, high=0.9),
            "attention_efficiency": SimpleNamespace(value=0.5, low=0.4, high=0.6),
            "kernel_s": SimpleNamespace(value=1e-6, low=1e-7, high=1e-5),
        }
    )
    return calibrated_base(A, an_estimate(), fit)


def test_the_base_of_the_tornado_is_the_answer_itself():
    assert pencil_base(A).minutes() == pytest.approx(row("A11", "video").corrected)
    assert base().minutes() == pytest.approx(an_estimate().minutes_per_gpu_hour.value)


def test_each_swing_by_hand():
    swings = {s.factor: s for s in sensitivity(base(), DEMAND, HEADROOM)}
    video, share = 18_903.0, swings["guidance"].minutes
    assert share == pytest.approx((3600 / video, 3600 / (36_000 + 900 + 6)))
    assert swings["steps"].minutes[1] == pytest.approx(3600 / (18_000 / 5 + 903))
    # 15,000 s of attention at 0.5: at 0.6 it takes 5/6, at 0.4 5/4.
    assert swings["utilisation of attention"].minutes == pytest.approx(
        (3600 / (video - 15_000 / 6), 3600 / (video + 15_000 / 4))
    )
    assert swings["VAE decode"].minutes == pytest.approx(
        (3600 / (18_003 + 810), 3600 / (18_003 + 1080))
    )
    answer = an_estimate().minutes_per_gpu_hour.value
    assert swings["candidates per upload"].fleet == pytest.approx(
        (fleet(14.95e6, answer, 4), fleet(14.95e6, answer, 16))
    )
    assert swings["share of TikTok that is generated"].fleet[1] == pytest.approx(
        fleet(17e6 * 0.75 + 6.45e6, answer, 8)
    )
    assert swings["attention factorised"].minutes[1] > 3 * swings["attention factorised"].minutes[0]


@pytest.mark.parametrize("start", [pencil_base(A), base()], ids=["pencil", "calibrated"])
def test_the_tornado_is_sorted_and_each_range_holds_the_base_or_starts_from_it(start):
    swings = sensitivity(start, DEMAND, HEADROOM)
    folds = [s.fold for s in swings]
    assert folds == sorted(folds, reverse=True)
    assert min(folds) >= 1
    assert all(s.source for s in swings)
    for s in swings:
        for m, f in zip(s.minutes, s.fleet, strict=True):
            assert m > 0
            assert 0 < f < math.inf
        document = s.as_dict()
        assert document["fleet"]["low"] <= document["fleet"]["high"]


def test_the_document_and_tables_of_a_calibrated_chain():
    found = analyse(None, None, tornado=True)
    m = measured()
    whole = Analysis(
        rows=chain(A, DEMAND, HEADROOM, measured=m),
        bars=found.bars,
        swings=found.swings,
        measured=m,
        units=cross_model(A, H100, m.ceilings, H100, m.units_s),
    )
    document = json.loads(json.dumps(analysis_document(whole), allow_nan=False))
    assert {r["id"] for r in document["rows"]} == {f"A{i}" for i in range(1, 18)}
    assert document["cross_model"][0]["calibrated_s"]["value"] == 18e3
    assert document["cross_model"][0]["calibrated_provenance"] == "extrapolated"
    assert document["training_flop_over_forward_flop"]["value"] == 1.25
    assert [t.title for t in analysis_tables(whole)] == ["What moves the answer, each alone"]
    assert len(analysis_tables(replace(whole, swings=[]))) == 3


def test_the_command_without_a_calibration(here):
    code, out, _ = here("analytic", "--sensitivity", "--json", "--gpu", "h200")
    document = json.loads(out)
    assert code == 0
    assert all(r["calibrated"] is None for r in document["rows"])
    assert all(
        u["datasheet"]["rates"] == "datasheet of h200" and u["ceilings"] is None
        for u in document["cross_model"]
    )
    assert document["sensitivity"][0]["fold"] > document["sensitivity"][-1]["fold"]
    assert "sensitivity" not in json.loads(here("analytic", "--json")[1])


def test_the_command_draws_its_figures(here, tmp_path):
    code, _, _ = here("analytic", "--sensitivity", "--json", "--figures", str(tmp_path / "new"))
    assert code == 0
    assert {p.name for p in (tmp_path / "new").iterdir()} == {
        f"{name}.{kind}" for name in ("tornado", "waterfall") for kind in ("pdf", "png", "svg")
    }
    (tmp_path / "file").touch()
    assert here("analytic", "--figures", str(tmp_path / "file"))[0] == 2


@pytest.mark.parametrize(
    ("gpu", "says"), [("h100", "--gpu 'h100' is not one of"), ("cpu", "has no bf16 rate")]
)
def test_a_card_without_a_datasheet_is_said(here, gpu, says):
    code, _, err = here("analytic", "--gpu", gpu)
    assert code == 2
    assert says in err
