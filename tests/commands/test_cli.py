"""Every command as a user calls it: exit codes, one line for a mistake, one JSON document on
stdout."""

import json
import re
import shutil
import subprocess
import sys
import time

import pytest

from bench.calibrate.cost_model import PARAMETERS
from bench.results.store import RECORDS
from support.cli import cli
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
    assert all(r["calibrated"] is None for r in d["rows"])
    assert [b["provenance"] for b in d["waterfall"]] == [
        "claimed",
        "counted",
        "counted",
        "counted",
        "counted",
    ]


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


def test_ceilings(document):
    d = document("ceilings", "--device", "cpu")
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


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["count", "sora-20", "-w", "image-512"], 2, "did you mean sora-20b?"),
        (["count", "tiny", "-w", "480p-80f"], 2, "did you mean 480p-81f?"),
        (["count", "tiny"], 2, "--workload"),
        (
            ["count", "tiny", "-w", "tiny-clip", "--set", "workload.frames=20"],
            2,
            "nearest: 17 or 21",
        ),
        (
            ["count", "tiny", "-w", "tiny-clip", "--set", "num_heads=3"],
            2,
            "width 256 is not a multiple of num_heads 3",
        ),
        (["count", "tiny", "-w", "tiny-clip", "--set", "workload.width=-64"], 2, "-64"),
        (["list", "modles"], 2, "did you mean models?"),
        (["run", "smok"], 2, "did you mean smoke?"),
        (["run", "smoke", "--budget", "soon"], 2, "duration 'soon'"),
        (["run", "smoke", "--device", "gpu"], 2, "not one of cpu, cuda"),
        (["run", "smoke", "--resume", "/nowhere"], 2, "/nowhere"),
        (["calibrate", "/nowhere"], 2, "no such result directory"),
        (["report", "/nowhere"], 2, "no such result directory"),
        (["predict", "tiny", "-w", "tiny-clip", "--calibration", "/nowhere"], 2, "/nowhere"),
        (["analytic", "--calibration", "/nowhere"], 2, "/nowhere"),
        (["fly"], 2, "fly"),
        (["list", "--colour"], 2, "--colour"),
    ],
)
def test_mistakes_get_one_line_and_their_exit_code(here, args, code, message):
    got, out, err = here(*args)
    assert (got, out) == (code, "")
    (line,) = err.strip().splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_no_cuda_is_the_environments_fault(tmp_path):
    done = cli(
        "run", "smoke", "--device", "cuda", "--out", str(tmp_path), env={"CUDA_VISIBLE_DEVICES": ""}
    )
    assert done.returncode == 3
    assert done.stderr.strip().splitlines()[-1].startswith("error: --device cuda: no CUDA device")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("args", [["count", "sora-20", "-w", "image-512"], ["fly"]])
def test_a_mistake_in_a_process_of_its_own(args):
    done = cli(*args)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"error: .*\n", done.stderr)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no record"),
        ("not json\n", "not a JSON object"),
        ("{}\n", "not a record"),
    ],
)
def test_records_without_a_valid_one(tmp_path, here, content, message):
    (tmp_path / RECORDS).write_text(content)
    for command in ("calibrate", "report"):
        code, _, err = here(command, str(tmp_path))
        assert code == 2
        (line,) = err.strip().splitlines()
        assert message in line


def test_a_torn_last_line_is_a_warning(measured, tmp_path):
    directory = tmp_path / "copy"
    shutil.copytree(measured[0], directory)
    with open(directory / RECORDS, "a") as file:
        file.write('{"schema_version":1,"kind":"poi')
    done = cli("calibrate", str(directory), "--json")
    assert done.returncode == 0
    assert done.stderr.startswith("warning: ")
    assert "torn" in done.stderr
    json.loads(done.stdout)


def test_damaged_calibration(measured, tmp_path, here):
    directory = tmp_path / "copy"
    shutil.copytree(measured[0], directory)
    (directory / "calibration.json").write_text("{")
    code, _, err = here("analytic", "--calibration", str(directory))
    assert (code, "makes it anew" in err) == (2, True)


def test_too_few_points_say_what_would_supply_them(measured, tmp_path, here):
    directory = tmp_path / "copy"
    shutil.copytree(measured[0], directory)
    kept = (directory / RECORDS).read_text().splitlines()[:2]
    record = json.loads(kept[1])
    record["timings"] = {"denoise_step": record["timings"]["denoise_step"]}
    (directory / RECORDS).write_text(kept[0] + "\n" + json.dumps(record) + "\n")
    code, _, err = here("calibrate", str(directory))
    assert code == 2
    assert "1 measured stages" in err
    assert f"--resume {directory}" in err


def test_records_of_several_devices_are_refused(measured, tmp_path, here):
    directory = tmp_path / "copy"
    shutil.copytree(measured[0], directory)
    lines = (directory / RECORDS).read_text().splitlines()
    record = json.loads(lines[-1])
    record["environment"]["device_name"] = "another"
    (directory / RECORDS).write_text("\n".join([*lines[:-1], json.dumps(record)]) + "\n")
    code, _, err = here("calibrate", str(directory))
    assert (code, "several devices" in err) == (2, True)


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


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["list", "MODELS"], 2, "did you mean models?"),
        (["run"], 2, "which suite? One of ablations, "),
        (["run", "smoke", "--budget", ""], 2, "--budget: duration '' is not understood"),
        (["run", "smoke", "--budget", "soon"], 2, "--budget: duration 'soon'"),
        (["run", "smoke", "--budget", "9" * 400], 2, "--budget: duration '999"),
        (["run", "--resume", "/nowhere"], 2, "/nowhere: no readable suite.json"),
        (
            ["predict", "tiny", "-w", "tiny-clip", "--calibration", "/nowhere"],
            2,
            "/nowhere: no such result directory",
        ),
        (["count", "a\nb", "-w", "tiny-clip"], 2, "unknown model 'a\\nb'"),
        (["count", "a\0/b.yaml", "-w", "tiny-clip"], 2, "no file has such a name"),
        (["count", "x" * 5000 + ".yaml", "-w", "tiny-clip"], 2, "file name too long"),
        (
            ["count", "tiny", "-w", "tiny-clip", "--set", "width=2001-99-99"],
            2,
            "denoiser.width: '2001-99-99'",
        ),
    ],
)
def test_more_mistakes_are_one_line(here, args, code, message):
    got, out, err = here(*args)
    assert (got, out) == (code, "")
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert message.lower() in line.lower()


def test_ceilings_that_the_device_cannot_run_are_one_line(here):
    code, out, err = here("doctor", "--ceilings", "--device", "cpu", "--recipe", "eager-cudnn")
    assert (code, out) == (3, "")
    assert err.strip() == "error: ceilings: skipped_unsupported: attention cudnn needs CUDA"


def test_a_place_that_cannot_be_written_keeps_nothing(here):
    code, _, err = here("run", "smoke", "--device", "cpu", "--out", "/proc/x")
    assert code == 3
    assert err.splitlines()[-1].startswith("error: /proc/x/cpu/")
    assert "kept" not in err


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
        (f"PYTHONIOENCODING=ascii {SHELL} analytic", 0, ""),
    ],
)
def test_streams_that_are_full_closed_or_narrow(command, code, stderr):
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert (done.returncode, done.stderr) == (code, stderr)


def test_too_few_points_of_a_suite_that_was_all_tried_ask_for_more_points(measured, tmp_path, here):
    directory = tmp_path / "copy"
    shutil.copytree(measured[0], directory)
    lines = []
    for line in (directory / RECORDS).read_text().splitlines():
        record = json.loads(line)
        if record["kind"] == "point":
            record |= (
                {"outcome": "skipped_unsupported", "reason": "too large", "timings": {}}
                if len(lines) > 1
                else {}
            )
        lines.append(json.dumps(record))
    first = json.loads(lines[1])
    first["timings"] = {"denoise_step": first["timings"]["denoise_step"]}
    lines[1] = json.dumps(first)
    (directory / RECORDS).write_text("\n".join(lines) + "\n")
    code, _, err = here("calibrate", str(directory))
    assert code == 2
    assert "every point of the suite was tried: add points" in err
    assert "--resume" not in err
    ceilings = {**json.loads(lines[0]), "outcome": "error", "reason": "KeyError: x", "probes": []}
    (directory / RECORDS).write_text("\n".join([json.dumps(ceilings), *lines[1:]]) + "\n")
    assert "the ceilings ended in error: KeyError: x" in here("calibrate", str(directory))[2]


def test_a_damaged_suite_is_one_line_in_report(measured, tmp_path, here):
    directory = tmp_path / "copy"
    shutil.copytree(measured[0], directory)
    (directory / "suite.json").write_bytes(b"\xff\xfe")
    code, _, err = here("report", str(directory))
    assert (code, len(err.splitlines()), "suite.json: damaged" in err) == (2, 1, True)
