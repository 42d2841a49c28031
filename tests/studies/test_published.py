"""calibrate --from: what a table's words mean, which rows are refused and why, and whether known
rates come back."""

import csv
import dataclasses
import json

import numpy as np
import pytest

from bench.core.errors import UserError
from bench.core.load import load, names
from bench.core.specs.gpu import Gpu
from bench.core.specs.model import Model
from bench.count.depth import ClassWork, decode_flops, encode_flops, forward_work
from bench.studies.published.counts import CountCache, Counted
from bench.studies.published.fit import fit as fit_free
from bench.studies.published.held_out import (
    constant_mfu,
    errors,
    fit_published,
    fit_table,
    held_out,
    split_impossible,
)
from bench.studies.published.model import PublishedModel
from bench.studies.published.names import Unusable, fast_attention, read_gpu, read_model, read_scope
from bench.studies.published.table import NEEDED, Row, read_table
from support.cli import cli
from support.paths import ROOT

REFERENCE = ROOT / "configs" / "reference" / "published_latency.csv"
MINIMAL = {
    "model": "Wan2.1-T2V-1.3B",
    "gpu": "H100",
    "width": "832",
    "height": "480",
    "frames": "81",
    "steps": "50",
    "forwards_per_video": "100",
    "scope": "full pipeline",
    "latency_s": "80",
}


def write(path, *rows, columns=NEEDED):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    return path


# --- words ---


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        (
            "full pipeline incl. text encoder + VAE decode (inferred: generate.py total time)",
            "text + denoising + vae decode",
        ),
        ("end to end", "text + denoising + vae decode"),
        ("full pipeline excluding text encoder", "denoising + vae decode"),
        ("sampling time without VAE decode", "denoising"),
        ("DiT denoising only (excludes text encoder and VAE)", "denoising"),
        ("DiT only", "denoising"),
        ("denoising loop", "denoising"),
        ("total denoising time", "denoising"),
        ("DiT forward + VAE decode (stacked bar)", "denoising + vae decode"),
        (
            "Full pipeline (text encoding, denoising, VAE decoding), excluding model loading",
            "text + denoising + vae decode",
        ),
        ("DiT denoise, per step", "denoising, per step"),
        ("s/it", "denoising, per step"),
        ("one DiT forward", "denoising, per forward"),
        ("end_to_end", "text + denoising + vae decode"),
        ("dit_only", "denoising"),
        ("per_step", "denoising, per step"),
        ("e2e", "text + denoising + vae decode"),
        ("transformer only", "denoising"),
        ("denoise_loop", "denoising"),
        ("denoise+decode", "denoising + vae decode"),
        ("zippy", "text + denoising + vae decode"),
        ("without_vae", "text + denoising"),
    ],
)
def test_scopes(text, meant):
    assert str(read_scope(text)) == meant


@pytest.mark.parametrize("text", ["unstated", "", "n/a", "VAE decode only", "text_encoder"])
def test_scopes_that_say_nothing_about_denoising(text):
    with pytest.raises(Unusable, match="scope"):
        read_scope(text)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "wan2.1-t2v-1.3b"),
        ("wan 2.1 14b", "wan2.1-t2v-14b"),
        ("Wan2.1-I2V-14B-720P", "wan2.1-t2v-14b"),
        ("Wan2.2-I2V-A14B", "wan2.2-t2v-a14b"),
        ("Wan2.2-TI2V-5B", "wan2.2-ti2v-5b"),
        ("tencent/HunyuanVideo", "hunyuanvideo"),
        ("HunyuanVideo 1.5", "hunyuanvideo-1.5"),
        ("CogVideoX-5B-I2V", "cogvideox-5b"),
        ("CogVideoX1.5-5B", "cogvideox1.5-5b"),
        ("CogVideoX-2b", "cogvideox-2b"),
        ("LTX-Video", "ltx-video-2b"),
        ("LTX-Video-0.9.7-13B", "ltx-video-13b"),
        ("LTX-2", "ltx-2"),
        ("mochi-1-preview", "mochi-1"),
        ("Cosmos-Predict2-14B-Video2World", "cosmos-predict2-14b"),
        ("sora-20b", "sora-20b"),
        ("Wan2.1_T2V_1_3B", "wan2.1-t2v-1.3b"),
        ("DiT-XL/2", "dit-xl-2"),
        ("HunyuanVideo (cfg-distilled)", "hunyuanvideo"),
    ],
)
def test_models(name, config):
    assert read_model(name, names("models")) == config


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("LTX-Video-13B-distilled", "distilled"),
        ("FastHunyuan", "distilled"),
        ("Wan2.1-VACE-14B", "variant"),
        ("Wan2.2-A14B-Lightning", "distilled"),
        ("HunyuanVideo-fp8", "quantised"),
        ("Open-Sora-1.2", "unknown"),
        ("", "empty"),
    ],
)
def test_models_that_are_not_counted(name, reason):
    with pytest.raises(Unusable, match=reason):
        read_model(name, names("models"))


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("H100", "h100-sxm"),
        ("H800/H100", "h100-sxm"),
        ("H100-SXM5-80GB", "h100-sxm"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("H100 NVL", "h100-nvl"),
        ("1x H100", "h100-sxm"),
        ("A100/A800 80GB", "a100-80gb"),
        ("A100-SXM4-40GB", "a100-40gb"),
        ("H200 SXM", "h200"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("H20", "h20"),
        ("L40S", "l40s"),
        ("NVIDIA H100 80GB HBM3", "h100-sxm"),
    ],
)
def test_gpus(name, config):
    assert read_gpu(name, names("gpus"), {})[0] == config


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("8xH100", "several"),
        ("H100 x 8", "several"),
        ("A100/H100", "more than one kind"),
        ("GB200", "no datasheet"),
        ("", "empty"),
    ],
)
def test_gpus_that_cannot_be_used(name, reason):
    with pytest.raises(Unusable, match=reason):
        read_gpu(name, names("gpus"), {})


def test_attention_is_fast_only_where_it_is_said():
    assert fast_attention("FA3")
    assert fast_attention("cuDNN/FA3 baseline (doc wording)")
    assert not fast_attention("unstated (FA2 or FA3; implied FLOP rate fits FA2)")
    with pytest.raises(Unusable, match="sparse"):
        fast_attention("SageAttention2")


# --- rows ---


def test_the_reference_table_loses_no_row_silently():
    read = read_table(REFERENCE)
    with REFERENCE.open() as file:
        everything = list(csv.DictReader(file))
    assert len(read.rows) + len(read.skipped) == len(everything)
    assert all(s.reason for s in read.skipped)
    h100 = {row.id for row in read.rows if row.gpu == "h100-sxm"}
    assert h100 == {
        "L0020",
        "L0024",
        "L0058",
        "L0061",
        "L0064",
        "L0067",
        "L0516",
        "L0527",
        "L0674",
        "L0675",
        "L0676",
        "L0677",
        "L0804",
        "L0805",
        "L0816",
        "L0817",
    }
    per_step = next(row for row in read.rows if row.id == "L0680")
    assert (per_step.latency_s, per_step.forwards) == (4.07, 2.0)  # s_per_step of guided steps
    assert read.gpus["H800/H100"].startswith("h100-sxm (")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"latency_s": ""}, "latency_s is empty"),
        ({"latency_s": "nan"}, "latency_s is nan"),
        ({"latency_s": "-3"}, "must be positive"),
        ({"forwards_per_video": "100 or 150"}, "not a number"),
        ({"width": "832.5"}, "whole number"),
        ({"forwards_per_video": "20"}, "skipped or cached"),
        ({"frames": "3"}, "takes nothing near"),
        ({"n_gpus": "4"}, "4 GPUs"),
        ({"batch": "2"}, "batch 2"),
        ({"dtype": "fp8"}, "quantised"),
        ({"dtype": "fp32"}, "16 bits"),
        ({"scope": "unstated"}, "does not say"),
    ],
)
def test_a_row_that_cannot_be_used_says_why(tmp_path, change, reason):
    table = write(
        tmp_path / "t.csv", MINIMAL, MINIMAL | change, columns=[*NEEDED, *set(change) - set(NEEDED)]
    )
    read = read_table(table)
    assert len(read.rows) == 1
    assert reason in read.skipped[0].reason


def test_nine_columns_are_enough_and_spelling_is_forgiven(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text(
        "\ufeffModel;GPU;Width;Height;Frames;Steps;forwards per video;Scope;latency_s\n"
        "Wan2.1-T2V-1.3B;H100;832;480;80;50;100;End-to-End;80 s\n\n"
    )
    read = read_table(table)
    assert (read.rows[0].frames, read.rows[0].latency_s) == (81, 80.0)
    assert "80 frames counted as" in read.notes[0]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,234.5", 1234.5),
        ("1,234", 1234.0),
        ("12,5", 12.5),
        ("1 234.5", 1234.5),
        ("~80", 80.0),
        ("80.5 s", 80.5),
        ("2 min", 120.0),
        ("1500 ms", 1.5),
        ("1e2", 100.0),
        ('"80"', None),
        ("2:30", None),
        ("12,34,5", None),
    ],
)
def test_numbers(tmp_path, text, value):
    read = read_table(write(tmp_path / "t.csv", MINIMAL, MINIMAL | {"latency_s": text}))
    assert [r.latency_s for r in read.rows[1:]] == ([] if value is None else [pytest.approx(value)])
    assert value is not None or "not a number" in read.skipped[0].reason


def test_a_scope_in_unknown_words_is_a_whole_video_and_said(tmp_path):
    read = read_table(write(tmp_path / "t.csv", MINIMAL | {"scope": "zippy"}))
    assert str(read.rows[0].scope) == "text + denoising + vae decode"
    assert read.notes == ["scope 'zippy' is not known: read as text + denoising + vae decode"]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_other_peoples_files(tmp_path, separator):
    """A byte-order mark, Windows line ends, capitals, quotes, a blank first line, columns nobody
    knows."""
    lines = [
        "",
        separator.join([c.upper() for c in NEEDED] + ["MFU"]),
        separator.join([f'"{MINIMAL[c]}"' for c in NEEDED] + ["0.4"]),
    ]
    (tmp_path / "t.csv").write_bytes(("\ufeff" + "\r\n".join(lines)).encode())
    assert read_table(tmp_path / "t.csv").rows[0].latency_s == 80.0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"\x00\x01", "not a text file"),
        (b"\xff\xfe\xfa", "UTF-8"),
        (b"a,b\n1,2\n", "none of the columns"),
        ((",".join(NEEDED) + "\n").encode(), "no rows"),
        (
            b"model,gpu,width,height,frames,steps,forwards_per_video,scope,latency\n",
            "no column latency_s; did you mean latency",
        ),
        (
            (",".join(NEEDED) + "\n" + "Sora,H100,1,1,1,1,1,full,1\n").encode(),
            "none of its 1 rows can be used: model 'Sora'",
        ),
    ],
)
def test_what_is_no_such_table_is_a_mistake_in_one_line(tmp_path, content, said):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(UserError) as raised:
        read_table(tmp_path / "t.csv")
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


# --- counts ---


@pytest.mark.parametrize(
    ("model", "depths", "latents"),
    [
        ("wan2.1-t2v-1.3b", {"num_layers": 5}, (3, 8, 8)),
        ("cogvideox-2b", {"num_layers": 5}, (3, 8, 8)),
        ("hunyuanvideo", {"num_layers": 4, "num_single_layers": 5}, (2, 8, 8)),
        ("mochi-1", {"num_layers": 5}, (2, 8, 8)),
        ("ltx-video-2b", {"num_layers": 5}, (2, 4, 4)),
        ("latte", {"num_layers": 5}, (16, 8, 8)),
    ],
)
def test_two_and_three_blocks_tell_the_rest_to_the_last_flop(model, depths, latents):
    from bench.count import depth as at_depth

    denoiser = load(Model, model).denoiser
    denoiser = dataclasses.replace(denoiser, config={**denoiser.config, **depths})
    whole = at_depth._traced_forward(denoiser, latents, at_depth.torch.bfloat16)
    assert forward_work(denoiser, latents) == whole
    assert whole.attention_flops > 0


@pytest.mark.parametrize("way", ["decode", "encode"])
def test_a_vae_by_three_and_four_latent_frames_is_the_whole_one(way):
    from bench.count import depth as at_depth

    vae = load(Model, "wan2.1-t2v-1.3b").vae
    module, torch = at_depth._vae(vae), at_depth.torch
    if way == "decode":
        latents = torch.empty(1, 16, 5, 4, 4, device="meta", dtype=torch.bfloat16)
        assert (
            decode_flops(vae, 17, 32, 32)
            == at_depth._work(lambda: module.decode(latents, 17)).flops
        )
    else:
        video = torch.empty(1, 3, 17, 32, 32, device="meta", dtype=torch.bfloat16)
        assert encode_flops(vae, 17, 32, 32) == at_depth._work(lambda: module.encode(video)).flops


def test_counts_are_kept_and_a_broken_cache_is_counted_again(tmp_path):
    counted = []

    def count():
        counted.append(1)
        return {"flops": 7}

    assert (
        CountCache(tmp_path).numbers(["a"], count)
        == CountCache(tmp_path).numbers(["a"], count)
        == {"flops": 7}
    )
    assert len(counted) == 1
    next(tmp_path.glob("counts-*.json")).write_text("{torn")
    assert CountCache(tmp_path).numbers(["a"], count) == {"flops": 7}
    assert len(counted) == 2


# --- fits ---

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
    predicted = constant_mfu(np.array([1.0, 1.0, 1.0]), np.array([2.0, 2.0, 8.0]))
    assert predicted == pytest.approx([4.0, 4.0, 2.0])
    by_group = constant_mfu(np.array([1.0, 1.0, 1.0]), np.array([2.0, 2.0, 8.0]), ["a", "a", "b"])
    assert by_group == pytest.approx([8.0, 8.0, 2.0])
    assert np.isnan(constant_mfu(np.ones(2), np.ones(2), ["a", "a"])).all()
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


# --- the command ---


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
