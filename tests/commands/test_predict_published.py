"""predict from what others published: what is said, in which order, and every mistake."""

import json
import subprocess
import sys

import pytest

from bench.calibrate.make import calibrate
from support.fits.cards import altered, as_card
from support.paths import ROOT

WAN = ("predict", "wan2.1-t2v-14b", "-w", "720p-81f")


def test_one_card(here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = here(*WAN, "--gpu", "h100-sxm", "--json")
    d = json.loads(out)
    assert code == 0
    assert d["video_s"]["low"] < 1837.9 < d["video_s"]["high"]  # L0020, published of this point
    assert d["published"][0]["id"] == "L0020"
    assert d["provenance"] == "fitted"
    evidence = d["evidence"]
    assert (evidence["kind"], evidence["gpu"]) == ("published", "h100-sxm")
    assert evidence["n"] == 19
    assert "Wan-Video/Wan2.1" in evidence["sources"]
    assert evidence["heldout"]["model"]["error"] <= 0.07 < evidence["heldout"]["model"]["one_mfu"]
    assert d["usd_per_minute"]["low"] < d["usd_per_minute"]["high"]
    code, out, _ = here(*WAN, "--gpu", "h100-sxm")
    assert "as published rows run it: FlashAttention-2, not compiled" in out
    assert "fitted to 19 latencies measured by others on this card" in out
    assert "FlashAttention-3 or" in out  # run in other ways


def test_all_cards_cheapest_first(here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = here(*WAN, "--gpu", "all", "--json")
    every = json.loads(out)["rows"]
    assert code == 0, err
    rows = [row for row in every if row["fits_memory"]]
    assert every[: len(rows)] == rows
    prices = [row["usd_per_minute"]["value"] for row in rows if row["usd_per_minute"]]
    assert prices == sorted(prices)
    assert [row["usd_per_minute"] is None for row in rows] == sorted(
        row["usd_per_minute"] is None for row in rows
    )
    kinds = {row["gpu"]: row["evidence"]["kind"] for row in rows}
    assert kinds["b300"] == "sibling"
    assert kinds["h200"] == "published"
    assert "cpu" not in kinds
    assert all(row["price"]["date"] for row in rows if row["price"])


def test_cards_and_recipes_make_one_table(here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = (*WAN, "--gpu", "h100-sxm,b200", "--recipe", "fp8,cache-first-block", "--steps", "20")
    code, out, _ = here(*asked, "--json")
    rows = json.loads(out)["rows"]
    assert code == 0
    assert {(r["gpu"], r["recipe"]) for r in rows} == {
        (gpu, recipe)
        for gpu in ("h100-sxm", "b200")
        for recipe in ("fp8-bf16", "cache-first-block-bf16")
    }
    assert all("steps=20" in r["workload"] for r in rows)
    code, out, err = here(*asked)
    assert "published row says" in err  # of the cache
    code, out, _ = here(*asked, "--paragraph")
    assert (code, out.count("\n")) == (0, 1)
    assert "--paragraph` with ldt-bench." in out
    assert "sayakpaul/diffusers-torchao" in out


def test_it_answers_without_torch_and_scipy(tmp_path):
    code = (
        "import sys; sys.argv = ['ldt-bench', *sys.argv[1:]]\n"
        "from bench.cli import main\n"
        "try: main()\n"
        "except SystemExit as left: code = left.code\n"
        "assert not {'torch', 'scipy', 'diffusers'} & set(sys.modules), sorted(sys.modules)\n"
        "sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *WAN, "--gpu", "all", "--json"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((*WAN,), "predict needs --gpu, a card of configs/gpus (or all), or --calibration"),
        ((*WAN, "--gpu", "h10"), "--gpu 'h10' is not one of"),
        ((*WAN, "--gpu", "cpu"), "--gpu cpu: there is no published evidence of it"),
        ((*WAN, "--gpu", "h100-sxm,"), "--gpu 'h100-sxm,': expected names with commas"),
        ((*WAN, "--gpu", "h100-sxm", "--ceilings", "x"), "--ceilings goes with --calibration"),
        (
            (*WAN, "--gpu", "h200", "--recipe", "eager", "--set", "recipe.dtype=fp32"),
            "published evidence is of bf16 and fp16, and says nothing of fp32",
        ),
        (
            ("predict", "videopoet-8b", "-w", "sora-1min-512", "--gpu", "h200"),
            "model videopoet-8b is auto-regressive",
        ),
        ((*WAN, "--gpu", "h200", "--recipe", "eagre"), "eager"),
        (("predict", "wan2.1", "-w", "720p-81f", "--gpu", "h200"), "wan2.1-t2v-14b"),
        ((*WAN, "--gpu", "h200", "--steps", "0"), "greater than or equal to 1"),
    ],
)
def test_mistakes_are_one_line(here, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    code, out, err = here(*arguments)
    assert code == 2
    assert says in err
    assert len(err.strip().splitlines()) == 1
    assert not out.strip()


def test_own_records_come_first_and_the_difference_is_a_finding(
    here, measured, tmp_path, monkeypatch
):
    directory, _ = measured
    own = tmp_path / "results" / "a100-80gb" / "20260101T000000Z_mine"
    own.parent.mkdir(parents=True)
    calibrate(altered(directory, own, as_card("a100-80gb", "NVIDIA A100-SXM4-80GB", 1.0)))
    monkeypatch.chdir(tmp_path)
    asked = ("predict", "tiny", "-w", "tiny-video", "--gpu", "a100-80gb", "--recipe", "eager")
    code, out, _ = here(*asked, "--set", "recipe.dtype=fp32", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["evidence"]["kind"] == "records"
    assert found["evidence"]["sources"] == ["results/a100-80gb/20260101T000000Z_mine"]
    assert found["published_evidence"] is None  # nothing is published in fp32
    code, out, err = here(
        "predict", "tiny", "-w", "tiny-video", "--gpu", "a100-80gb,h200", "--calibration", str(own)
    )
    assert (code, len(err.strip().splitlines())) == (2, 1)
    assert "--calibration predicts one recipe on one card" in err


def test_an_own_result_that_cannot_say_is_passed_over_with_a_note(
    here, measured, tmp_path, monkeypatch
):
    """It has float32 alone; what others published is in half precision."""
    directory, _ = measured
    own = tmp_path / "results" / "a100-80gb" / "20260101T000000Z_mine"
    own.parent.mkdir(parents=True)
    calibrate(altered(directory, own, as_card("a100-80gb", "NVIDIA A100-SXM4-80GB", 1.0)))
    monkeypatch.chdir(tmp_path)
    code, out, err = here(*WAN, "--gpu", "a100-80gb", "--json")
    assert code == 0, err
    assert json.loads(out)["evidence"]["kind"] == "published"
    assert "20260101T000000Z_mine is not used: recipe 'eager-bf16' is not calibrated" in err
    code, _, err = here("predict", "wan2.1", "-w", "720p-81f", "--gpu", "a100-80gb")
    assert (code, len(err.strip().splitlines())) == (2, 1)


@pytest.mark.parametrize(
    ("given", "paid"), [(["3.2"], 3.2), (["h100-sxm=2.5", "h200=9"], 2.5), (["9", "h100-sxm=2"], 2)]
)
def test_ones_own_price(here, tmp_path, monkeypatch, given, paid):
    monkeypatch.chdir(tmp_path)
    options = [word for price in given for word in ("--price", price)]
    code, out, err = here(*WAN, "--gpu", "h100-sxm", *options, "--json")
    assert code == 0, err
    d = json.loads(out)
    minutes = d["minutes_per_gpu_hour"]
    assert d["usd_per_minute"]["value"] == pytest.approx(paid / minutes["value"])
    assert d["usd_per_minute"]["low"] == pytest.approx(paid / minutes["high"])
    assert d["price"]["source"] == "--price"


@pytest.mark.parametrize("price", ["x", "-1", "0", "nan", "h200=", "=3", "h2000=3", "1e9"])
def test_a_price_that_is_none(here, price):
    code, _, err = here(*WAN, "--gpu", "h100-sxm", f"--price={price}")
    assert code == 2
    assert err.startswith("error: --price ")
    assert err.count("\n") == 1


def test_a_card_whose_memory_is_too_small_is_never_first(here, tmp_path, monkeypatch):
    """rtx-4090 is the cheapest minute on paper, where the weights do not fit."""
    monkeypatch.chdir(tmp_path)
    _, out, _ = here("predict", "hunyuanvideo", "-w", "720p-129f", "--gpu", "all", "--json")
    fits = [row["fits_memory"] for row in json.loads(out)["rows"]]
    assert fits == sorted(fits, reverse=True)
    assert not all(fits)
