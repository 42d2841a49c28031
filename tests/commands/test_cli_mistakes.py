"""A mistake is one line on stderr and an exit code, and costs nothing that was measured."""

import json
import re
import shutil

import pytest

from bench.results.store import RECORDS
from support.cli import cli


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
        (["count", "tiny", "-w", "tiny-clip", "--parallel", "ulises=2"], 2, "mean ulysses?"),
        (["count", "tiny", "-w", "tiny-clip", "--parallel", "cfg=3"], 2, "--parallel cfg=3"),
        (["count", "tiny", "-w", "tiny-clip", "--parallel", "ring"], 2, "AXIS=DEGREE"),
        (
            ["count", "tiny", "-w", "tiny-clip", "--parallel", "ulysses=3"],
            2,
            "ulysses 3 does not divide 4 heads",
        ),
        (["list", "modles"], 2, "did you mean models?"),
        (["run", "smok"], 2, "did you mean smoke?"),
        (["run", "smoke", "--gpus", "8"], 2, "suite smoke names its meshes itself"),
        (["run", "scaling-cpu", "--gpus", "1"], 2, "--gpus 1: expected 2 to 4096"),
        (["run", "smoke", "--gpus", "8", "--nodes", "3", "--rendezvous", "n:1"], 2, "--nodes 3"),
        (["run", "smoke", "--shards-here", "0"], 2, "--shards-here 0: expected 1 or more"),
        (["run", "smoke", "--shards-here", "2", "--resume", "x"], 2, "--resume goes with one run"),
        (["run", "smoke", "--shards-here", "2", "--on", "ray"], 2, "--on goes with one run"),
        (
            ["compare", "no-such", "other", "--point", "tiny:tiny-clip:eager"],
            2,
            "--point goes with two git revisions; no-such and other are not both",
        ),
        (["check", "."], 2, "expected a baseline file, found a directory"),
        (["run", "smoke", "--nodes", "2"], 2, "--nodes 2 goes with --gpus"),
        (["run", "smoke", "--rendezvous", "n:1"], 2, "--rendezvous goes with --nodes"),
        (["follow", "--rendezvous", "node0"], 2, "expected HOST:PORT"),
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
