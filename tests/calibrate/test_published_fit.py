"""calibrate --from: whether known rates come back, and how well a row is predicted without it."""

import dataclasses
import json

import numpy as np
import pytest

from bench.calibrate.fitting.accuracy import constant_rate
from bench.calibrate.published.counts import Counted
from bench.calibrate.published.fit import fit as fit_free
from bench.calibrate.published.held_out import (
    errors,
    fit_published,
    fit_table,
    held_out,
    split_impossible,
)
from bench.calibrate.published.model import PublishedModel
from bench.calibrate.published.names import read_scope
from bench.calibrate.published.table import Row, read_table
from bench.core.errors import UserError
from bench.core.load import load
from bench.core.specs.gpu import Gpu
from bench.results.counts import ClassWork
from support.cli import cli
from support.fits.published import MINIMAL, write

H100 = load(Gpu, "h100-sxm")


PEAK = H100.peak_flops_per_s["bf16"]


def wan_like(tokens: int) -> Counted:
    """A forward of Wan 1.3B's shape (width 1536, 30 blocks) by hand: linear in the tokens,
    attention with their square."""
    return Counted(
        ClassWork(
            linear_flops=int(2.5e9 * tokens),
            attention_flops=30 * 4 * 1536 * tokens**2,
            elementwise_bytes=18_000_000 * tokens,
        ),
        int(8.4e9 * tokens),
        ClassWork(),
    )


def rows_of(tokens, seconds, **kind) -> list[Row]:
    described = {
        "model": "wan2.1-t2v-1.3b",
        "fast_attention": False,
        "unfused": False,
        "offloaded": False,
        **kind,
    }
    return [
        Row(
            id=str(n),
            named="",
            gpu="h100-sxm",
            frames=81,
            height=480,
            width=832,
            forwards=100.0,
            prompts=2,
            scope=read_scope("full pipeline"),
            encodes_clip=False,
            latency_s=float(s),
            **described,
        )
        for n, s in zip(tokens, seconds, strict=True)
    ]


def sweep(
    noise: float,
    tokens=(3_000, 6_000, 10_000, 16_000, 24_000, 32_760, 50_000, 75_600),
    vae=0.2,
    fixed=5.0,
):
    rng = np.random.default_rng(0)
    counted = [wan_like(n) for n in tokens]
    seconds = [
        100 * (c.forward.linear_flops / 0.5 + c.forward.attention_flops / 0.35) / PEAK
        + c.vae_flops / vae / PEAK
        + fixed
        for c in counted
    ]
    return rows_of(tokens, np.array(seconds) * np.exp(rng.normal(0, noise, len(tokens)))), counted


@pytest.fixture
def quiet():
    return lambda text: None


def test_known_rates_come_back_from_a_resolution_sweep(quiet):
    rows, counted = sweep(noise=0.01)
    fit = fit_published(H100, rows, counted, quiet)
    for i, truth in ((0, 0.5), (1, 0.35), (3, 5.0)):
        assert i in fit.fitted.free
        assert abs(np.log(fit.fitted.theta[i] / truth)) < 3 * np.log(fit.draws[:, i]).std(), (
            fit.model.names[i]
        )
    assert fit.leave_one_out.mean < 0.02 < 0.1 < fit.constant_mfu.mean
    assert fit.leave_one_model_out is None
    assert fit.upward.mean < 0.15


def test_without_noise_the_rates_are_exact_and_the_vae_is_said_to_be_held(quiet):
    rows, counted = sweep(noise=0.0)
    fit = fit_published(H100, rows, counted, quiet)
    assert fit.fitted.theta[[0, 1, 3]] == pytest.approx([0.5, 0.35, 5.0], rel=2e-3)
    assert 2 not in fit.fitted.free  # in a sweep of sizes the VAE grows as the linear layers do
    low, high = np.percentile(fit.draws[:, 0], (5, 95))
    assert high / low > 1.01  # what is held is uncertain, and the interval says so


def test_pooled_rows_tell_the_gain_of_fast_attention(quiet):
    rows, counted = sweep(noise=0.0)
    gained = [
        dataclasses.replace(
            r,
            fast_attention=True,
            id=r.id + "f",
            latency_s=r.latency_s
            - 100 / PEAK * c.forward.attention_flops * (1 / 0.35 - 1 / (0.35 * 1.6)),
        )
        for r, c in zip(rows, counted, strict=True)
    ]
    fit = fit_published(H100, rows + gained, counted + counted, quiet)
    assert fit.fitted.theta[4] == pytest.approx(1.6, rel=0.02)


@pytest.mark.parametrize(("points", "worst"), [(4, 0.06), (6, 0.03), (8, 0.03)])
@pytest.mark.parametrize(("vae", "fixed"), [(0.2, 3.0), (0.2, 10.0), (0.012, 3.0)])
def test_a_sweep_is_predicted_by_its_other_rows(quiet, points, worst, vae, fixed):
    """Fixed 10 s: a tenth of the median row; VAE at 0.012: 0.25 to 0.4 of the smaller rows."""
    rows, counted = sweep(noise=0.01, vae=vae, fixed=fixed)
    fit = fit_published(H100, rows[:points], counted[:points], quiet)
    assert fit.leave_one_out.mean < worst
    assert fit.fitted.factors == {}  # one model: its factor is in the rates


def test_a_loop_without_other_stages_gives_both_rates(quiet):
    rows, counted = sweep(noise=0.02, fixed=0.0, vae=1e9)
    loop = [dataclasses.replace(r, scope=read_scope("dit only")) for r in rows]
    fit = fit_published(H100, loop, [dataclasses.replace(c, vae_flops=0) for c in counted], quiet)
    for i, truth in ((0, 0.5), (1, 0.35)):
        assert abs(np.log(fit.fitted.theta[i] / truth)) < 3 * np.log(fit.draws[:, i]).std()
    assert fit.leave_one_out.mean < 0.03


def test_models_run_in_their_own_ways_get_a_factor_and_unseen_ones_none(quiet):
    rows, counted = sweep(noise=0.01)
    factors = {"a": 1.3, "b": 0.8, "c": 1.0}
    pooled = [
        dataclasses.replace(r, model=m, id=m + r.id, latency_s=r.latency_s * f)
        for m, f in factors.items()
        for r in rows[::2]
    ]
    fit = fit_published(H100, pooled, counted[::2] * 3, quiet)
    assert 0.1 < fit.fitted.tau < 0.6
    found = np.exp([fit.fitted.factors[m] for m in factors])
    assert found / found[2] == pytest.approx([1.3, 0.8, 1.0], rel=0.05)
    assert fit.leave_one_out.mean < 0.03 < 0.12 < fit.leave_one_model_out.mean
    one_each = fit_published(
        H100, [dataclasses.replace(r, model=r.id) for r in rows], counted, quiet
    )
    assert one_each.fitted.factors == {}


def test_one_rate_for_everything_is_constant_utilisation(quiet):
    rows, counted = sweep(noise=0.0)
    model = PublishedModel(H100)
    at_peak = np.array([model.features(r, c)[:3].sum() for r, c in zip(rows, counted, strict=True)])
    noise = np.random.default_rng(1).normal(0, 0.1, len(rows))
    flat = [
        dataclasses.replace(r, latency_s=float(s))
        for r, s in zip(rows, at_peak / 0.4 * np.exp(noise), strict=True)
    ]
    fit = fit_published(H100, flat, counted, quiet)
    x = np.stack([model.features(r, c) for r, c in zip(flat, counted, strict=True)])
    x[:, 4] = 1  # a kernel that all rows share is no other rate
    one_rate = fit_free(
        model,
        x,
        np.array([r.latency_s for r in flat]),
        ["a"] * 8,
        (0,),
        model.one_rate,
        with_factors=False,
    )
    assert model.seconds(x, one_rate.theta) == pytest.approx(
        at_peak / fit.constant_mfu_value, rel=2e-3
    )
    assert (
        fit.leave_one_out.mean < 2 * fit.constant_mfu.mean
    )  # what choosing costs where the truth is one rate


def test_the_slopes_are_the_derivatives():
    rows, counted = sweep(noise=0.0)
    model = PublishedModel(H100)
    x = np.stack([model.features(r, c) for r, c in zip(rows, counted, strict=True)])
    x[::2, 4], x[::3, 5], x[1::2, 6] = 1, 1, 1  # fast attention, nothing compiled, offloaded
    for attention, vae in ((0.35, 0.1), (np.nan, 0.1), (np.nan, np.nan)):
        theta = np.array([0.5, attention, vae, 4.0, 1.7, 0.9, 0.4, 20.0])
        free = [i for i in range(8) if not np.isnan(theta[i])]
        for column, i in enumerate(free):
            up, down = theta.copy(), theta.copy()
            up[i], down[i] = theta[i] * 1.0001, theta[i] / 1.0001
            numeric = np.log(model.seconds(x, up) / model.seconds(x, down)) / (2 * np.log(1.0001))
            assert model.slopes(x, theta, free)[:, column] == pytest.approx(numeric, abs=1e-6)


def test_a_row_faster_than_the_card_is_left_out_and_said():
    rows, counted = sweep(noise=0.0)
    rows[2] = dataclasses.replace(rows[2], latency_s=rows[2].latency_s / 4)
    kept, works, skipped = split_impossible(H100, rows, counted)
    assert (len(kept), len(works), [s.id for s in skipped]) == (7, 7, ["10000"])
    assert "of h100-sxm's 16-bit peak" in skipped[0].reason


def test_four_rows_bear_two_parameters_at_most(quiet):
    rows, counted = sweep(noise=0.03)
    assert len(fit_published(H100, rows[:4], counted[:4], quiet).fitted.free) <= 2


def test_a_row_left_out_has_no_part_in_its_own_prediction():
    rows, counted = sweep(noise=0.01)
    model = PublishedModel(H100)
    x = np.stack([model.features(r, c) for r, c in zip(rows, counted, strict=True)])
    t = np.array([r.latency_s for r in rows])
    models = [r.model for r in rows]
    wrong = t.copy()
    wrong[3] *= 5
    assert held_out(model, x, t, models, [0, 0, 0, 1] + [0] * 4)[3] == pytest.approx(
        held_out(model, x, wrong, models, [0, 0, 0, 1] + [0] * 4)[3], rel=1e-9
    )


def test_the_baseline_is_the_geometric_mean_of_the_others():
    predicted = constant_rate(np.array([1.0, 1.0, 1.0]), np.array([2.0, 2.0, 8.0]))
    assert predicted == pytest.approx([4.0, 4.0, 2.0])
    by_group = constant_rate(np.array([1.0, 1.0, 1.0]), np.array([2.0, 2.0, 8.0]), ["a", "a", "b"])
    assert by_group == pytest.approx([8.0, 8.0, 2.0])
    assert np.isnan(constant_rate(np.ones(2), np.ones(2), ["a", "a"])).all()
    e = errors(predicted, np.array([2.0, 2.0, 8.0]), ["a", "b", "c"])
    assert (e.mean, e.median, e.worst, e.worst_row) == (
        pytest.approx(2.75 / 3),
        pytest.approx(1.0),
        pytest.approx(1.0),
        "a",
    )


def test_too_few_rows_says_how_many_are_needed(tmp_path, quiet):
    read = read_table(write(tmp_path / "t.csv", MINIMAL))
    with pytest.raises(UserError, match="h100-sxm: 1 usable rows; at least 4 are needed"):
        fit_table(read, None, quiet)
    with pytest.raises(UserError, match="usable rows of h100-sxm; did you mean h100-sxm"):
        fit_table(read, "h100-sxmm", quiet)


def test_the_command_takes_a_directory_or_a_table():
    for arguments in ([], ["results", "--from", "t.csv"]):
        done = cli("calibrate", *arguments)
        assert done.returncode == 2
        assert "a result directory, or --from TABLE" in done.stderr


def test_the_document_has_the_contracts_keys(tmp_path):
    rows = [
        MINIMAL
        | {
            "model": "tiny",
            "width": str(w),
            "height": str(w),
            "frames": "1",
            "forwards_per_video": str(n),
            "scope": "dit",
            "latency_s": str(s),
        }
        for w, n, s in (
            (128, 50, 4.0),
            (128, 100, 6.0),
            (256, 50, 7.0),
            (256, 100, 12.0),
            (256, 100, 12.5),
        )
    ]
    rows.append(MINIMAL | {"model": "FLUX.1"})
    done = cli(
        "calibrate",
        "--from",
        str(write(tmp_path / "t.csv", *rows)),
        "--json",
        env={"XDG_CACHE_HOME": str(tmp_path / "cache")},
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert {
        "parameters",
        "leave_one_out",
        "upward",
        "constant_mfu_baseline",
        "points",
        "fixed",
        "rows",
        "skipped",
        "aliases",
    } <= document.keys()
    assert document["points"] == 5
    assert {"value", "low", "high", "unit", "at_bound"} <= document["parameters"][
        "linear_efficiency"
    ].keys()
    assert document["skipped"][0]["reason"] == "model 'FLUX.1': unknown"
    assert document["aliases"]["gpus"]["H100"].startswith("h100-sxm")
    assert list((tmp_path / "cache" / "ldt-bench").glob("counts-*.json"))
