"""predict --gpus, --parallel and --objective: what is said, and every mistake."""

import json
import re
import subprocess
import sys

import pytest

from support.fits.cards import altered, as_card
from support.paths import ROOT

WAN = ("predict", "wan2.1-t2v-14b", "-w", "720p-81f")
H100 = (*WAN, "--gpu", "h100-sxm")


@pytest.fixture(autouse=True)
def _without_results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_best_mesh_of_eight_cards(here):
    code, out, err = here(*H100, "--gpus", "8", "--json")
    d = json.loads(out)
    assert code == 0, err
    assert d["best"]["parallel"]["cfg"] == 2
    assert d["best"]["parallel"]["ulysses"] == 4
    # L0023: Wan's own repository, FSDP and Ulysses on 8 H100s.
    assert [row["id"] for row in d["published"]] == ["L0023"]
    assert d["best"]["video_s"]["low"] < 287.9 < d["best"]["video_s"]["high"]
    parts = d["best"]["video_s_by_part"]
    assert sum(parts.values()) == pytest.approx(d["best"]["video_s"]["value"])
    single = next(m for m in d["meshes"] if m["parallel"]["data"] == 8)
    assert single["video_s"] == d["one_gpu_video_s"]
    assert d["evidence"]["n"] == 77


def test_in_words(here):
    code, out, err = here(*H100, "--gpus", "8")
    assert code == 0, err
    assert "cfg 2 x ulysses 4 is first of 30 meshes by latency" in out
    assert "beside it, 8 single cards: 8 videos" in out
    assert "with the decode on all cards too" in out
    assert "published of this very point: 288 s (L0023" in out
    assert re.search(r"held-out error on 8 cards: 1\d\.\d% for a new source", out)
    assert "8 single cards" in out


def test_numbers_and_kinds_of_cards_make_one_table(here):
    code, out, err = here(*WAN, "--gpu", "h100-sxm,h200", "--gpus", "1,2,8", "--json")
    rows = json.loads(out)["rows"]
    assert code == 0, err
    assert [(r["gpu"], r["best"]["gpus"]) for r in rows] == [
        (gpu, n) for gpu in ("h100-sxm", "h200") for n in (1, 2, 8)
    ]
    seconds = [r["best"]["video_s"]["value"] for r in rows[:3]]
    assert seconds == sorted(seconds, reverse=True)
    code, out, _ = here(*WAN, "--gpu", "h100-sxm", "--gpus", "1,2")
    assert "1 card" in out
    assert "cfg 2" in out


def test_a_card_with_too_few_beside_it_is_left_out_of_many(here):
    code, out, err = here(*WAN, "--gpu", "h100-nvl,h100-sxm,h200", "--gpus", "8")
    assert code == 0
    assert "left out: --gpus 8: up to 2 cards of h100-nvl" in err
    assert "h100-nvl" not in out


def test_a_mesh_says_its_number_of_cards(here):
    code, out, _ = here(*H100, "--parallel", "ulysses=4,vae=4", "--json")
    d = json.loads(out)
    assert code == 0
    assert len(d["meshes"]) == 1
    assert d["best"]["gpus"] == 4
    assert d["why"] == "the mesh asked for"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("--gpus", "16"), "up to 8 cards of h100-sxm share a nvlink domain"),
        (("--gpus", "0"), "--gpus '0': expected a whole number from 1 to 4096"),
        (("--gpus", "2,,4"), "--gpus '': expected a whole number"),
        (("--gpus", "eight"), "--gpus 'eight': expected a whole number"),
        (("--gpus", "8", "--parallel", "ulysses=4"), "is 4 GPUs, --gpus says 8"),
        (("--parallel", "ulysses=3"), "ulysses 3 does not divide 40 heads"),
        (("--parallel", "ulises=2"), "unknown axis 'ulises'; did you mean ulysses?"),
        (("--parallel", "auto"), "go with --gpus"),
        (("--objective", "cost"), "go with --gpus"),
        (("--gpus", "8", "--objective", "latncy"), "did you mean latency?"),
        (("--gpus", "2", "--set", "recipe.parallel.ulysses=2"), "has a mesh"),
        (("--set", "recipe.parallel.ulysses=2"), "has a mesh"),
        (("--set", "recipe.parallel.ulises=2"), "did you mean ulysses?"),
        (("--gpus", "8", "--paragraph"), "--paragraph goes with one GPU"),
        (("--gpus", "8", "--recipe", "fp8,compiled-bf16"), "one recipe at a time"),
    ],
)
def test_mistakes_are_one_line(here, asked, said):
    code, out, err = here(*H100, *asked)
    assert code == 2
    assert out == ""
    assert said in err
    assert len(err.strip().splitlines()) == 1


def test_without_a_card(here):
    code, _, err = here(*WAN, "--gpus", "8")
    assert code == 2
    assert "predict needs --gpu" in err


def test_a_calibration_of_one_card_is_the_base(here, measured, tmp_path):
    directory, _ = measured
    card = as_card("a100-80gb", "NVIDIA A100-SXM4-80GB", 1.0)
    own = altered(directory, tmp_path / "mine", card)
    in_fp32 = ("--recipe", "eager", "--set", "recipe.dtype=fp32")
    tiny = ("predict", "tiny", "-w", "tiny-video", *in_fp32)
    asked = (*tiny, "--calibration", str(own))
    code, out, err = here(*asked, "--json")
    assert code == 0, err
    alone = json.loads(out)
    code, out, err = here(*asked, "--gpus", "4", "--json")
    assert code == 0, err
    d = json.loads(out)
    assert d["gpu"] == "a100-80gb"
    single = next(m for m in d["meshes"] if m["parallel"]["data"] == 4)
    assert single["video_s"] == pytest.approx(alone["video_s"])
    code, _, err = here(*tiny, "--calibration", str(directory), "--gpus", "4")
    assert code == 2
    assert "no link between cards of cpu is known: configs/gpus/cpu.yaml has none" in err


def test_neither_torch_nor_scipy_is_imported():
    asked = ["wan2.1-t2v-14b", "-w", "720p-81f", "--gpu", "h100-sxm", "--gpus", "8", "--json"]
    code = (
        "import sys, contextlib, io\n"
        "from bench.cli import main\n"
        f"sys.argv = ['ldt-bench', 'predict', *{asked!r}]\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n"
        "    try:\n        main()\n    except SystemExit as end:\n        assert not end.code\n"
        "print([m for m in ('torch', 'scipy', 'diffusers') if m in sys.modules])\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ran.stdout.strip() == "[]", ran.stdout + ran.stderr
