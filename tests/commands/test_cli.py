"""Every command as a user calls it: exit codes, one line for a mistake, one JSON document on
stdout."""

import json
import subprocess
import sys
import time

import pytest

from bench.calibrate.cost.parameters import PARAMETERS
from bench.core.specs.suite import Sampling
from support.paths import ROOT


@pytest.fixture
def document(here):
    """document(*args) -> the one JSON document that a command prints."""

    def call(*args: str):
        code, out, err = here(*args, "--json")
        assert code == 0, err
        (line,) = out.splitlines()
        return json.loads(line)

    return call


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["list"],
        ["count"],
        ["ceilings"],
        ["doctor"],
        ["run"],
        ["calibrate"],
        ["predict"],
        ["analytic"],
        ["report"],
        ["compare"],
        ["claims"],
    ],
)
def test_help_needs_nothing_heavy(args):
    code = (
        "import sys; sys.argv = ['ldt-bench', *sys.argv[1:]]\n"
        "from bench.cli import main\n"
        "try: main()\n"
        "except SystemExit as e: assert not e.code\n"
        "heavy = {'torch', 'scipy', 'matplotlib', 'numpy', 'diffusers'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *args, "--help"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout


@pytest.mark.parametrize("args", [["list", "--json"], ["analytic", "--json"], ["claims", "--json"]])
def test_list_analytic_and_claims_import_no_torch(args):
    code = (
        "import sys; sys.argv = ['ldt-bench', *sys.argv[1:]]\n"
        "from bench.cli import main\n"
        "try: main()\n"
        "except SystemExit as e: assert not e.code\n"
        "assert 'torch' not in sys.modules and 'scipy' not in sys.modules"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code, *args], capture_output=True, cwd=ROOT, check=False
        ).returncode
        == 0
    )


def test_list(document):
    entries = document("list")
    assert {e["kind"] for e in entries} == {
        "models",
        "workloads",
        "recipes",
        "gpus",
        "suites",
        "claims",
        "demands",
    }
    assert all(e["name"] and e["description"] for e in entries)
    models = {e["name"]: e for e in document("list", "models")}
    assert (
        len([n for n in models if n.startswith("dit-") and models[n]["params"]]) == 12
    )  # the table of the DiT paper
    assert (
        len([n for n in models if models[n].get("diffusers") and "tiny" not in n]) == 20
    )  # docs/models.md
    assert models["dit-xl-2"]["params"] == 674_834_720


def test_count(document):
    d = document("count", "dit-xl-2", "--workload", "image-512")
    assert d["forward"]["macs"] == pytest.approx(524.5e9, rel=1e-3)
    assert d["params"] == pytest.approx(675e6, rel=1e-3)
    for key in (
        "model",
        "workload",
        "params",
        "tokens",
        "latent_shape",
        "forwards_per_step",
        "steps",
        "step_flops",
        "text_encode_flops",
        "vae_encode_flops",
        "vae_decode_flops",
        "video_flops",
        "bytes",
        "cross_check",
        "uncounted_ops",
    ):
        assert key in d
    assert (
        document("count", "dit-xl-2", "-w", "image-512", "--set", "width=1024")["model"]
        == "dit-xl-2[width=1024]"
    )


def test_analytic(document):
    d = document("analytic")
    assert {r["id"] for r in d["rows"]} == {f"A{i}" for i in range(1, 18)}
    assert all(
        {"id", "printed", "computed", "calibrated", "unit", "note"} <= set(r) for r in d["rows"]
    )
    calibrated = {r["id"] for r in d["rows"] if r["calibrated"]}
    assert calibrated == {"A9", "A11", "A12", "A15", "A16", "A17"}  # by published H100 runs
    assert [b["provenance"] for b in d["waterfall"]] == [
        "claimed",
        "counted",
        "counted",
        "counted",
        "extrapolated",
        "extrapolated",
        "extrapolated",
    ]
    assert d["evidence"]["kind"] == "published"
    assert d["evidence"]["gpu"] == "h100-sxm"


def test_calibrate_predict_analytic_agree(measured, document):
    directory, _ = measured
    c = document("calibrate", str(directory))
    assert set(c["parameters"]) == set(PARAMETERS)
    for p in c["parameters"].values():
        assert p["low"] <= p["value"] <= p["high"]
    assert c["leave_one_out"]["worst"] >= c["leave_one_out"]["mean"] > 0
    assert {"upward", "constant_mfu_baseline", "points"} <= set(c)
    p = document("predict", "sora-20b", "-w", "sora-1min-512", "--calibration", str(directory))
    assert p["provenance"] == "extrapolated"
    assert any("tokens" in w for w in p["warnings"])
    assert p["video_s"]["value"] == pytest.approx(sum(s["value"] for s in p["stages"].values()))
    assert p["step_s"]["value"] == pytest.approx(sum(p["step_s_by_class"].values()))
    a = document("analytic", "--calibration", str(directory))
    *factors, extra = a["waterfall"]
    assert factors[-1]["value"] == pytest.approx(p["minutes_per_gpu_hour"]["value"])
    assert extra["extra"]
    assert 0.5 <= extra["multiplier"] < 0.55  # the decode is not doubled
    (a11,) = [r for r in a["rows"] if r["id"] == "A11"]
    assert a11["calibrated"]["value"] == factors[-1]["value"] == p["minutes_per_gpu_hour"]["value"]
    by_row = {r["id"]: r for r in a["rows"] if r["quantity"].startswith("training of")}
    assert (
        by_row["A9"]["calibrated"] is None
    )  # the micro suite trains nothing, and the note says so
    assert "not calibrated: no point of this calibration has a train_step" in by_row["A9"]["note"]
    sora, *_ = a["cross_model"]
    assert sora["calibrated_s"]["value"] == pytest.approx(p["stages"]["denoise"]["value"])
    assert sora["usd"] is None  # a CPU has no price


def test_ceilings(document, monkeypatch):
    """By three samples a probe: what they measure is looked at, not how well."""
    few = Sampling(target_relative_half_width=1.0, min_samples=3, max_samples=3, max_s=0.1)
    monkeypatch.setattr("bench.run.suite.CEILINGS_SAMPLING", few)
    d = document("doctor", "--ceilings", "--device", "cpu")
    assert {
        "device",
        "gemm",
        "attention",
        "conv3d",
        "copy",
        "triad",
        "read",
        "write",
        "peak",
    } <= set(d)
    assert all(
        len(d[kind]["sizes"]) > 3 and d[kind]["bytes_per_s"] > 1e6
        for kind in ("copy", "triad", "read", "write")
    )
    assert all(
        d["peak"][k] > 1e6
        for k in (
            "gemm_flops_per_s",
            "attention_flops_per_s",
            "conv_flops_per_s",
            "copy_bytes_per_s",
        )
    )
    assert d["peak"]["gemm_flops_per_s"] == max(g["flops_per_s"] for g in d["gemm"])
    assert {"m", "n", "k", "dtype", "flops_per_s"} <= set(d["gemm"][0])


def test_works_from_any_directory(tmp_path):
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "bench.cli", "list", "models", "--json"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)
    assert time.monotonic() > started


SHELL = f"{sys.executable} -m bench.cli"


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full")
@pytest.mark.parametrize(
    ("command", "code", "stderr"),
    [
        (f"{SHELL} analytic > /dev/full", 3, "error: no space left on device\n"),
        (f"{SHELL} list --json > /dev/full", 3, "error: no space left on device\n"),
        (f"{SHELL} list recipes >&-", 0, ""),
        (f"{SHELL} list recipes 2>&- <&-", 0, ""),
        (f"set -o pipefail; {SHELL} analytic | true", 0, ""),
        (f"set -o pipefail; {SHELL} analytic --json | true", 0, ""),
        (f"set -o pipefail; {SHELL} run --help | true", 0, ""),
        (f"PYTHONIOENCODING=ascii {SHELL} analytic --quiet", 0, ""),
    ],
)
def test_streams_that_are_full_closed_or_narrow(command, code, stderr):
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert (done.returncode, done.stderr) == (code, stderr)


def test_count_of_a_rank_says_what_it_sends(document):
    counted = document("count", "tiny", "-w", "tiny-video", "--parallel", "ulysses=4,cfg=2")
    assert (counted["ranks"], counted["mesh"]) == (8, {"cfg": 2, "ulysses": 4})
    assert counted["closed_form_agrees"]
    assert {(s["axis"], s["collective"]) for s in counted["sent"]} == {
        ("cfg", "all-gather"),
        ("ulysses", "all-gather"),
        ("ulysses", "all-to-all"),
    }
    assert sum(s["bytes"] for s in counted["sent"]) == counted["bytes_sent_per_rank"]
