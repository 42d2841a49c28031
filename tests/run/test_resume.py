"""Interrupted, killed, resumed, elsewhere: nothing measured is lost, repeated or mixed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from bench.core.errors import UserError
from bench.core.load import load
from bench.core.specs.suite import Suite
from bench.results.store import RECORDS, SAMPLES, point_records, read_records
from bench.run.resume import check_resume
from support.cli import FIVE_POINTS, MICRO_SUITE, variant
from support.paths import ROOT
from support.runs import lines


def start(suite: Path, root: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "bench.cli",
            "run",
            str(suite),
            "--device",
            "cpu",
            "--out",
            str(root),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
        # Under `nohup ... &` SIGINT is ignored, and a child would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def wait_for(condition, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def result_dir(root: Path) -> Path:
    wait_for(lambda: list(root.glob("cpu/*/suite.json")))
    return next(root.glob("cpu/*/suite.json")).parent


def workers_in(session: int) -> list[int]:
    """Processes of the run's worker: it leads a session of its own, so it is found by its parent's
    id in /proc."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            command = (stat.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == session and b"bench.measure.worker.main" in command:
            found.append(int(stat.parent.name))
    return found


def gone(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill -9"])
def test_interrupted_and_resumed(tmp_path, sent, unreported):
    """Stages last a third of a second, so that the last is far off when the signal comes after the
    second record."""
    suite = variant(
        tmp_path,
        "cut",
        sampling={
            "target_relative_half_width": 1e-6,
            "min_samples": 3,
            "max_samples": 100_000,
            "max_s": 0.3,
        },
        points=FIVE_POINTS[:4],
    )
    run = start(suite, tmp_path)
    directory = result_dir(tmp_path)
    wait_for(lambda: len(lines(directory / RECORDS)) >= 2)
    (worker,) = workers_in(run.pid)
    os.kill(run.pid, sent)
    _, stderr = run.communicate(timeout=30)
    wait_for(lambda: gone(worker), 10)  # it dies with its parent
    if sent is signal.SIGINT:
        assert run.returncode == 130
        assert f"--resume {directory}" in stderr
        assert "Traceback" not in stderr
    before = lines(directory / RECORDS)
    assert 2 <= len(before) < 4
    if sent is signal.SIGINT:
        return  # what it left is resumed as after kill -9
    samples = lines(directory / SAMPLES)

    code, _, stderr = unreported("run", str(suite), "--device", "cpu", "--resume", str(directory))
    assert code == 0, stderr
    after = lines(directory / RECORDS)
    assert after[: len(before)] == before  # nothing lost
    fingerprints = [json.loads(line)["fingerprint"] for line in after]
    assert len(set(fingerprints)) == len(fingerprints) == 4  # nothing repeated
    assert lines(directory / SAMPLES)[: len(samples)] == samples
    started = {json.loads(line)["fingerprint"] for line in samples}
    for record in point_records(
        read_records(directory)
    ):  # samples of the point it was in were not taken again
        if record.fingerprint in started:
            flushed = [
                s
                for line in samples
                for r in [json.loads(line)]
                if (r["fingerprint"], r["stage"]) == (record.fingerprint, "denoise_step")
                for s in r["samples_s"]
            ]
            assert record.timings["denoise_step"].samples_s[: len(flushed)] == flushed

    assert unreported("run", str(suite), "--device", "cpu", "--resume", str(directory))[0] == 0
    assert lines(directory / RECORDS) == after  # all there: nothing to measure


def test_terminated_says_how_to_go_on(tmp_path):
    run = start(variant(tmp_path, "cut"), tmp_path)
    directory = result_dir(tmp_path)
    wait_for(lambda: "[0/5]" in run.stderr.readline(), 30)
    run.terminate()
    _, stderr = run.communicate(timeout=30)
    assert run.returncode == 143
    assert (
        stderr.strip().splitlines()[-1].endswith(f"go on with: ldt-bench run --resume {directory}")
    )
    assert "Traceback" not in stderr


def test_resume_does_not_mix_suites_or_environments(tmp_path, measured, micro_suite, here):
    directory, _ = measured
    other = variant(tmp_path, "other")
    code, _, err = here("run", str(other), "--resume", str(directory))
    assert (code, "it holds suite micro, not other" in err) == (2, True)
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(directory / "suite.json", copy)
    changed = (directory / RECORDS).read_text().replace('"threads":', '"threads":9')
    (copy / RECORDS).write_text(changed)
    kept = (copy / "suite.json").read_bytes()
    code, _, err = here("run", str(micro_suite), "--resume", str(copy))
    assert (code, "measured elsewhere or otherwise: threads 9" in err) == (2, True)
    assert (copy / "suite.json").read_bytes() == kept  # refused before anything is written


def test_resume_takes_a_suite_that_grew_and_no_other_change(tmp_path, measured):
    directory, _ = measured
    base = yaml.safe_load(MICRO_SUITE)
    for change, words in (
        ({"points": base["points"][1:]}, "had tiny tiny-image eager-fp32 then, and has not now"),
        ({"sampling": {**base["sampling"], "max_s": 0.3}}, "sampled otherwise then"),
    ):
        path = tmp_path / "micro.yaml"
        path.write_text(yaml.safe_dump({**base, **change}))
        with pytest.raises(UserError, match=words):
            check_resume(directory, load(Suite, str(path)))
    path.write_text(
        yaml.safe_dump(
            {**base, "points": [*base["points"], {**base["points"][1], "workload": "tiny-wide"}]}
        )
    )
    check_resume(directory, load(Suite, str(path)))


def test_what_failed_is_measured_again_on_resume(tmp_path, measured, micro_suite, unreported):
    """A worker killed by the kernel may find memory next time; the last record of a point
    counts."""
    directory, _ = measured
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "suite.json").write_bytes((directory / "suite.json").read_bytes())
    records = [json.loads(line) for line in lines(directory / RECORDS)]
    records[2] |= {"outcome": "oom", "reason": "killed", "timings": {}}
    (copy / RECORDS).write_text("".join(json.dumps(r) + "\n" for r in records))
    code, _, err = unreported("run", str(micro_suite), "--device", "cpu", "--resume", str(copy))
    assert code == 0, err
    assert [json.loads(line) for line in lines(copy / RECORDS)][: len(records)] == records
    assert len(lines(copy / RECORDS)) == len(records) + 1
    again = point_records(read_records(copy))
    assert [r.fingerprint for r in again] == [r["fingerprint"] for r in records[1:]]
    assert all(r.outcome in ("ok", "unstable") for r in again)


def test_points_measured_in_turns_go_on_after_a_kill(tmp_path, unreported):
    """All samples of the group are on disk as they come; on resume they count, and nothing is
    sampled twice."""
    points = [{**p, "together": True} for p in FIVE_POINTS]
    suite = variant(
        tmp_path,
        "turns",
        points=points,
        sampling={
            "target_relative_half_width": 1e-6,
            "min_samples": 20,
            "max_samples": 40,
            "max_s": 0.6,
        },
    )
    run = start(suite, tmp_path)
    directory = result_dir(tmp_path)
    wait_for(lambda: len(lines(directory / SAMPLES)) >= 12)
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate(timeout=30)
    samples = lines(directory / SAMPLES)
    order = [(r["fingerprint"], r["stage"]) for r in map(json.loads, samples[:8])]
    assert len(set(order)) == 8  # eight stages had their first turn before any a second
    code, _, err = unreported("run", str(suite), "--device", "cpu", "--resume", str(directory))
    assert code == 0, err
    assert lines(directory / SAMPLES)[: len(samples)] == samples
    records = point_records(read_records(directory))
    assert len(records) == 5
    taken = {}
    for line in map(json.loads, lines(directory / SAMPLES)):
        taken.setdefault((line["fingerprint"], line["stage"]), []).extend(line["samples_s"])
    for record in records:
        assert record.sentinel.before_s > 0
        assert "in turns with 4 other points" in record.memory.reason
        for stage, timing in record.timings.items():
            assert timing.samples_s == taken[record.fingerprint, stage]
