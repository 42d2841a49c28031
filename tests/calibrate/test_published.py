"""calibrate --from: which rows are refused and why, and what is counted for the others."""

import csv
import dataclasses

import pytest

from bench.calibrate.published.counts import CountCache
from bench.calibrate.published.table import NEEDED, read_table
from bench.core.errors import UserError
from bench.core.load import load
from bench.core.specs.model import Model
from bench.count.depth import decode_flops, encode_flops, forward_work
from support.fits.published import MINIMAL, write
from support.paths import ROOT

REFERENCE = ROOT / "configs" / "reference" / "published_latency.csv"


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
        "L0678",
        "L0679",
        "L0804",
        "L0805",
        "L0816",
        "L0817",
    }
    assert {row.id for row in read.rows if row.fp8} == {"L0678", "L0679"}
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
        ({"dtype": "int8"}, "quantised"),
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
        (b"\x00\x01", "found a binary file"),
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
