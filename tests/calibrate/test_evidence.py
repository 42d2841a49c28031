"""One cost model of all cards: what its fit recovers, how right the shipped one is, and that the
shipped files are those of the shipped tables."""

import importlib.util

import numpy as np
import pytest

from bench.calibrate.evidence.card import (
    card_names,
    read_card,
    row_predictions,
    shares,
    shipped_held_out,
    shipped_observations,
    shipped_scatter,
)
from bench.calibrate.evidence.conditions import Conditions, of_recipe, of_rows
from bench.calibrate.evidence.effects import USUAL, Scatter, design, expected, observed
from bench.calibrate.evidence.fit import fit
from bench.calibrate.evidence.forecast import forecast
from bench.calibrate.evidence.gather import source_of
from bench.calibrate.evidence.held_out import one_mfu, predict_held_out, two_rates
from bench.calibrate.evidence.observation import Observation, columns
from bench.calibrate.evidence.own import OWN, own_observations, together
from bench.calibrate.evidence.point import as_observation, evaluations
from bench.calibrate.evidence.posterior import FREEDOM, T95
from bench.core.errors import UserError
from bench.core.load import load, load_point
from bench.core.specs.gpu import Gpu
from bench.core.specs.recipe import Recipe
from bench.count.cache import CountCache
from support.paths import ROOT

ROWS = list(shipped_observations())
SCATTER = Scatter(**dict(shipped_scatter()))


def a_row(gpu: str, seconds: float = 1.0, **change) -> Observation:
    """1e15 FLOPs of linear layers and 2e15 of attention, compiled, with FlashAttention-2."""
    return Observation(
        **{
            "id": f"{gpu} {seconds} {change}",
            "gpu": gpu,
            "model": "a model",
            "source": "somebody",
            "grade": "A",
            "seconds": seconds,
            "linear_flops": 1e15,
            "attention_flops": 2e15,
            "vae_flops": 0.0,
            "elementwise_bytes": 0.0,
            "flops_per_token": 28e9,
            "stages": False,
            "fast_attention": False,
            "unfused": False,
            "offloaded": False,
        }
        | change
    )


def test_without_rows_a_point_takes_what_is_believed():
    # H100: 989.4e12; 1e15 / (0.55 x) + 2e15 / (0.4 x) = 1.838 + 5.054 s; the fast kernels twice.
    logs = expected(columns([a_row("h100-sxm"), a_row("h100-sxm", fast_attention=True)]))
    seconds = np.exp(logs).sum(axis=1)
    assert seconds[0] == pytest.approx(1e15 / (0.55 * 989.4e12) + 2e15 / (0.4 * 989.4e12))
    assert seconds[1] == pytest.approx(1e15 / (0.55 * 989.4e12) + 2e15 / (0.8 * 989.4e12))


def test_the_slopes_are_the_derivatives():
    some = columns(ROWS[:20])
    effects = observed(some, USUAL)
    placed, prior = design(effects, some), expected(some)
    at = np.random.default_rng(0).normal(0, 0.2, len(effects))
    _, shares_, slopes = placed.log_seconds(prior, at)
    assert shares_.sum(axis=1) == pytest.approx(np.ones(20))
    for i in range(len(effects)):
        step = np.zeros(len(effects))
        step[i] = 1e-5
        up, down = (placed.log_seconds(prior, at + s)[0] for s in (step, -step))
        assert (up - down) / 2e-5 == pytest.approx(slopes[:, i], abs=1e-6)


def test_known_rates_come_back():
    """Two rates of one card, from rows that differ in their shares of attention."""
    peak = load(Gpu, "h100-sxm").peak_flops_per_s["bf16"]
    rows = [
        a_row(
            "h100-sxm",
            (1e15 / 0.7 + attention / 0.5) / peak,
            attention_flops=attention,
            model=f"model {i}",
        )
        for i, attention in enumerate((1e13, 1e14, 5e14, 1e15, 5e15, 2e16))
    ]
    found = fit(columns(rows), np.array([r.seconds for r in rows]), USUAL).posterior
    asked = [a_row("h100-sxm", attention_flops=3e15, model="model 3")]
    predicted = found.forecast(columns(asked))
    assert predicted.seconds[0] == pytest.approx((1e15 / 0.7 + 3e15 / 0.5) / peak, rel=0.03)
    assert predicted.low[0] < (1e15 / 0.7 + 3e15 / 0.5) / peak < predicted.high[0]


def test_a_card_with_one_row_borrows_from_its_siblings():
    """Rows say that Hopper cards are half as fast as believed; so is an H200 without any row, less
    surely, and an Ada card is hardly moved."""
    slow = 2 * np.exp(expected(columns([a_row("h100-sxm")]))).sum()
    rows = [a_row("h100-sxm", slow, model=f"model {i}") for i in range(8)]
    rows += [a_row("h100-pcie", slow * 989.4 / 756, model=f"model {i}") for i in range(8)]
    found = fit(columns(rows), np.array([r.seconds for r in rows]), USUAL).posterior
    asked = {
        gpu: columns([a_row(gpu, model="model 1", source="somebody")])
        for gpu in ("h100-sxm", "h200", "l40s")
    }
    ratios, spreads = {}, {}
    for gpu, one in asked.items():
        predicted = found.forecast(one)
        ratios[gpu] = predicted.seconds[0] / np.exp(expected(one)).sum()
        spreads[gpu] = predicted.spread[0]
    assert ratios["h100-sxm"] == pytest.approx(2.0, rel=0.1)
    assert 1.3 < ratios["l40s"] < ratios["h200"] < 2.1
    assert spreads["h100-sxm"] < spreads["h200"] < spreads["l40s"]


def test_a_row_that_is_described_wrongly_pulls_little():
    right = np.exp(expected(columns([a_row("h100-sxm")]))).sum()
    rows = [a_row("h100-sxm", right, model=f"model {i}") for i in range(9)]
    wrong = a_row("h100-sxm", 5 * right, model="model 9")

    def predicted(these: list[Observation]) -> float:
        found = fit(columns(these), np.array([r.seconds for r in these]), USUAL).posterior
        return float(found.forecast(columns([a_row("h100-sxm", model="model 1")])).seconds[0])

    assert predicted([*rows, wrong]) / predicted(rows) < 1.05  # a mean of logs: 5^(1/10) = 1.17


def test_the_quantile_is_of_the_noise():
    from scipy.stats import t

    assert t.ppf(0.95, FREEDOM) == pytest.approx(T95, abs=1e-3)


def test_a_row_left_out_has_no_part_in_its_own_prediction():
    groups = [o.model for o in ROWS]
    some = predict_held_out("model", groups, ROWS, SCATTER)
    changed = [
        o.model_copy(update={"seconds": 3 * o.seconds}) if o.model == "hunyuanvideo" else o
        for o in ROWS
    ]
    other = predict_held_out("model", groups, changed, SCATTER)
    mine = np.array([o.model == "hunyuanvideo" for o in ROWS])
    assert some.log_seconds[mine] == pytest.approx(other.log_seconds[mine], abs=1e-9)
    assert some.log_seconds[~mine] != pytest.approx(other.log_seconds[~mine], abs=1e-3)


def test_the_simple_models():
    kept = np.array([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]])  # seconds at the datasheet
    wanted = np.array([[2.0, 2.0, 1.0]])
    # 2 s and 4 s: rates of 1/2 and 1/2, so twice everything; linear 1/2, attention 1/2.
    assert one_mfu(kept, np.array([2.0, 4.0]), wanted) == pytest.approx([10.0])
    assert two_rates(kept, np.array([2.0, 4.0]), wanted) == pytest.approx([10.0])
    assert two_rates(kept, np.array([2.0, 5.0]), wanted) == pytest.approx([3 * 2 + 2 * 3.0])


def held_out(by: str, gpu: str | None = None):
    (found,) = [h for h in shipped_held_out() if (h.by, h.gpu) == (by, gpu)]
    return found


@pytest.mark.parametrize("by", ["row", "size", "model", "source", "card"])
def test_intervals_of_what_was_left_out_hold_it(by):
    """90 % intervals; a card that was left out is one that evidence is carried to."""
    found = held_out(by)
    assert 0.85 <= found.inside <= 0.97
    assert found.error < 0.9 * found.one_mfu_of_all_cards


def test_held_out_errors_of_the_cards_that_people_rent():
    assert held_out("model", "h100-sxm").error <= 0.07
    assert held_out("source", "b200").error <= 0.20
    assert held_out("source", "h200").error <= 0.20
    for h in shipped_held_out():
        if h.by in ("row", "model") and h.n > 3 and h.one_mfu is not None:
            assert h.error <= h.one_mfu, h


def test_the_shipped_files_are_those_of_the_shipped_tables():
    spec = importlib.util.spec_from_file_location(
        "make_evidence", ROOT / "docs" / "make_evidence.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.faults() == []


def test_a_shipped_row_is_predicted_without_itself():
    found = row_predictions()["L0020"]
    (row,) = [o for o in ROWS if o.id == "L0020"]
    assert found.low < row.seconds < found.high
    assert found.seconds != pytest.approx(row.seconds, rel=1e-3)


def test_kinds_of_evidence():
    assert read_card("h100-sxm").kind == "published"
    assert (read_card("b300").kind, read_card("b300").siblings) == ("sibling", ["b200", "gb200"])
    assert set(card_names()) >= {"h100-sxm", "h200", "b200", "a100-80gb", "rtx-4090"}
    assert "cpu" not in card_names()
    reached = shares("h100-sxm")
    assert 0.5 < reached["linear"] < 0.85
    assert 0.25 < reached["attention"] < 0.45  # FlashAttention-2: 35 % (arXiv 2407.08608)


def test_a_card_without_rows_is_predicted_less_surely():
    point = load_point("wan2.1-t2v-14b", "720p-81f", "eager-bf16")
    widths = {
        gpu: (found := forecast(point, gpu).video_s).high / found.low for gpu in ("b200", "b300")
    }
    assert widths["b200"] < widths["b300"]
    known = forecast(point, "h100-sxm", Conditions()).video_s
    new = forecast(load_point("sora-20b", "480p-81f", "eager-bf16"), "h100-sxm", Conditions())
    assert new.video_s.high / new.video_s.low > known.high / known.low
    assert not new.known_model


def test_terms_stages_and_minutes_agree():
    f = forecast(load_point("hunyuanvideo", "720p-129f", "eager-bf16"), "h200")
    assert sum(f.by_term.values()) == pytest.approx(f.video_s.value)
    assert sum(q.value for q in f.stages.values()) == pytest.approx(f.video_s.value)
    # 129 frames at 24 a second
    minutes = f.point.workload.video_s / 60 * 3600 / f.video_s.value
    assert f.minutes_per_gpu_hour.value == pytest.approx(minutes)
    assert f.kwh_per_minute.value == pytest.approx(700 * 3600 / minutes / 3.6e6)
    assert f.usd_per_minute.low == pytest.approx(2.5 / f.minutes_per_gpu_hour.high)


def test_a_recipe_in_the_words_of_the_tables():
    h100, a100 = load(Gpu, "h100-sxm"), load(Gpu, "a100-80gb")
    auto = load(Recipe, "eager")
    assert of_recipe(auto, h100) == Conditions(fast_attention=True)
    assert of_recipe(auto, a100) == Conditions()
    assert of_recipe(load(Recipe, "fast"), h100).fp8
    with pytest.raises(UserError, match="says nothing of fp32"):
        of_recipe(load(Recipe, "eager", {"dtype": "fp32"}), h100)
    assert of_rows([]) is None
    rows = [a_row("h100-sxm", unfused=True)] * 2 + [a_row("h100-sxm", fast_attention=True)]
    assert of_rows(rows) == Conditions()


def test_a_cache_saves_the_evaluations_that_it_answers():
    counts = CountCache()
    plain, cached = (
        load_point("wan2.1-t2v-14b", "720p-81f", recipe, {"workload.steps": 20})
        for recipe in ("eager-bf16", "cache-first-block")
    )
    assert evaluations(plain, counts) == 40  # guidance: two a step
    # Computed: 0, 1 (warm-up), then every third up to 19, and the last: 0 1 4 7 10 13 16 19.
    computed = sum(cached.recipe.cache.schedule(20))
    assert computed == 8
    # Of the other 24 evaluations one of 40 blocks runs.
    assert evaluations(cached, counts) == pytest.approx(2 * (8 + 12 / 40))


def test_more_bits_and_other_kernels_are_warned_of():
    f = forecast(
        load_point("wan2.1-t2v-14b", "720p-81f", "int8-dynamic"), "h100-sxm", cache=CountCache()
    )
    assert any("says nothing of quantise int8-dynamic" in w for w in f.warnings)
    far = forecast(load_point("sora-20b", "sora-1min-512", "eager-bf16"), "h100-sxm")
    assert far.provenance == "extrapolated"
    assert any("184,320 tokens is 1.6 times the largest" in w for w in far.warnings)
    small = forecast(load_point("dit-xl-2", "image-512", "eager-bf16"), "h200")
    assert small.provenance == "extrapolated"
    assert any("1,024 tokens is" in w and "under the smallest" in w for w in small.warnings)
    l40s = forecast(load_point("wan2.1-t2v-14b", "720p-81f", "eager-bf16"), "l40s")
    assert any("L0788" in w and "L0789" in w for w in l40s.warnings)


def test_own_records_and_published_rows_are_fitted_together():
    """A card that is 1.3 times as slow as published: its records move the joint forecast towards
    it."""
    point = load_point("wan2.1-t2v-14b", "720p-81f", "eager-bf16")
    counts = CountCache()
    asked = as_observation(
        point, "h100-sxm", of_recipe(point.recipe, load(Gpu, "h100-sxm")), counts
    )
    published = forecast(point, "h100-sxm", cache=counts).video_s
    own = [
        asked.model_copy(
            update={
                "id": f"own {share}",
                "kind": "stage",
                "source": OWN,
                "stages": False,
                "vae_flops": 0.0,
                "seconds": 1.3 * published.value * share,
                "linear_flops": asked.linear_flops * share,
                "attention_flops": asked.attention_flops * share,
                "elementwise_bytes": asked.elementwise_bytes * share,
            }
        )
        for share in (0.01, 0.02, 0.5)
    ]
    both = forecast(point, "h100-sxm", posterior=together(own), source=OWN).video_s
    assert 1.15 < both.value / published.value < 1.35
    assert both.high / both.low < published.high / published.low


def test_stage_records_are_observations(measured, tmp_path):
    from bench.calibrate.evidence.card import can_be_observed
    from bench.results.store import point_records, read_records
    from support.fits.cards import altered, as_card

    directory, _ = measured
    assert own_observations(point_records(read_records(directory))) == []  # a CPU
    assert can_be_observed(load(Gpu, "cpu")) is not None
    card = altered(directory, tmp_path / "a100", as_card("a100-80gb", "NVIDIA A100-SXM4-80GB", 1.0))
    records = point_records(read_records(card))
    halves = [r for r in records if r.point["recipe"]["dtype"] in ("bf16", "fp16")]
    found = own_observations(records)
    assert len(found) == sum(
        stage in r.timings for r in halves for stage in ("denoise_step", "vae_decode")
    )
    for o in found:
        assert (o.gpu, o.source, o.kind) == ("a100-80gb", OWN, "stage")
        assert (o.vae_flops == 0) == o.id.endswith("denoise_step")


@pytest.mark.parametrize(
    ("text", "source"),
    [
        (
            "github Wan-Video/Wan2.2@42bf4cfa README Computational Efficiency",
            "Wan-Video/Wan2.2",
        ),
        ("github vllm-project/vllm-omni PR #1221 (2026-02-05)", "vllm-project/vllm-omni"),
        ("a blog of somebody", "a blog of somebody"),
        ("", "unnamed"),
    ],
)
def test_who_says_so(text, source):
    assert source_of(text) == source


def test_grades_and_guesses_weigh():
    row = a_row("h100-sxm")
    assert (row.noise, row.model_copy(update={"grade": "B-"}).noise) == (1.0, 2.0)
    assert row.model_copy(update={"guessed": True}).noise == 1.3
