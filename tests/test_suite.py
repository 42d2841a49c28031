"""The whole way, as a user runs it: measured, interrupted, killed, resumed.  Nothing measured is lost or repeated."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from conftest import MICRO_SUITE, ROOT, cli
from test_store import point_record
from test_store import record as ceilings_record

import bench.measure.ceilings
from bench.core.errors import EnvironmentFault, UserError
from bench.core.load import load
from bench.core.records import OUTCOMES, CeilingsRecord, PointRecord
from bench.core.spec import Suite
from bench.core.store import RECORDS, SAMPLES, point_records, read_records
from bench.measure.point import Unsupported
from bench.measure.process import JobFailed, Worker
from bench.measure.worker import run_job
from bench.report.documents import run_failed
from bench.suite import _check_resume, suite_jobs


def test_the_last_line_on_stdout_is_the_summary(measured):
    directory, done = measured
    summary = json.loads(done.stdout.splitlines()[-1])
    assert Path(summary["result_dir"]) == directory
    assert Path(summary["report"]).is_file()
    assert set(summary["outcomes"]) == set(OUTCOMES)
    assert summary["outcomes"]["ok"] + summary["outcomes"]["unstable"] == 6     # the machine may be busy
    headline = summary["headline"]
    assert (headline["model"], headline["workload"], headline["gpu"]) == ("tiny", "tiny-image", "cpu")
    assert headline["provenance"] == "measured"
    minutes = headline["minutes_per_gpu_hour"]
    assert 0 < minutes["low"] <= minutes["value"] <= minutes["high"]


def test_the_headline_is_the_sum_of_its_measured_stages(measured):
    directory, done = measured
    headline = json.loads(done.stdout.splitlines()[-1])["headline"]
    record = point_records(read_records(directory))[0]
    t = {stage: timing.median_s for stage, timing in record.timings.items()}
    video_s = 20 * t["denoise_step"] + t["vae_decode"] + t["text_encode"]         # tiny-image: 20 steps, no guidance
    assert headline["video_s"]["value"] == pytest.approx(video_s)
    assert headline["minutes_per_gpu_hour"]["value"] == pytest.approx(1 / 8 / 60 * 3600 / video_s)   # one frame at 8 fps


def test_records_hold_raw_samples_environment_and_counts(measured):
    directory, _ = measured
    records = read_records(directory)
    assert isinstance(records[0], CeilingsRecord)
    assert {p.kind for p in records[0].probes} == {"gemm", "attention", "conv3d", "copy", "triad", "read", "write"}
    rounds = [json.loads(line) for line in (directory / SAMPLES).read_text().splitlines()]
    for record in point_records(records):
        assert record.environment.device == "cpu"
        assert record.environment.torch
        assert record.environment.code_version
        assert record.memory.peak_allocated > record.memory.weights
        for stage, timing in record.timings.items():
            assert timing.n == len(timing.samples_s) >= 3
            assert timing.warmup_s
            flushed = [s for r in rounds if (r["fingerprint"], r["stage"]) == (record.fingerprint, stage)
                       for s in r["samples_s"]]
            assert flushed == timing.samples_s
            assert record.counts[stage].flops > 0
    text = (directory / RECORDS).read_text()
    for private in (os.uname().nodename, str(Path.home()), str(ROOT)):
        assert private not in text or len(private) < 4


def test_calibration_and_report_are_there(measured):
    directory, _ = measured
    report = (directory / "report.md").read_text()
    for words in ("measured, interval of the medians", "leave one out", "baseline", "claimed", "To reproduce"):
        assert words in report
    for figure in ("latency_vs_tokens", "predicted_vs_measured", "waterfall"):
        assert f"figures/{figure}.png" in report
        assert (directory / "figures" / f"{figure}.png").stat().st_size > 5000
        assert (directory / "figures" / f"{figure}.svg").read_text().startswith("<?xml")
    again = cli("report", str(directory))
    assert again.returncode == 0
    assert (directory / "report.md").read_text() == report


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.is_file() else []


def start(suite: Path, root: Path) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-m", "bench.cli", "run", str(suite), "--device", "cpu", "--out", str(root)],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True)


def wait_for(condition, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def result_dir(root: Path) -> Path:
    wait_for(lambda: list(root.glob("cpu/*/suite.json")))
    return next(root.glob("cpu/*/suite.json")).parent


def workers_in(session: int) -> list[int]:
    """Processes of the run's worker: it leads a session of its own, so it is found by its parent's id in /proc."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            command = (stat.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == session and b"bench.measure.worker" in command:
            found.append(int(stat.parent.name))
    return found


def gone(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill -9"])
def test_interrupted_and_resumed(tmp_path, sent):
    suite = variant(tmp_path, "cut")
    run = start(suite, tmp_path)
    directory = result_dir(tmp_path)
    wait_for(lambda: len(lines(directory / RECORDS)) >= 2)
    (worker,) = workers_in(run.pid)
    os.kill(run.pid, sent)
    _, stderr = run.communicate(timeout=30)
    wait_for(lambda: gone(worker), 10)                       # it dies with its parent
    if sent is signal.SIGINT:
        assert run.returncode == 130
        assert f"--resume {directory}" in stderr
        assert "Traceback" not in stderr
    before = lines(directory / RECORDS)
    assert 2 <= len(before) < 5
    samples = lines(directory / SAMPLES)

    done = cli("run", str(suite), "--device", "cpu", "--resume", str(directory))
    assert done.returncode == 0, done.stderr
    after = lines(directory / RECORDS)
    assert after[: len(before)] == before                    # nothing lost
    fingerprints = [json.loads(line)["fingerprint"] for line in after]
    assert len(set(fingerprints)) == len(fingerprints) == 5  # nothing repeated
    assert lines(directory / SAMPLES)[: len(samples)] == samples
    started = {json.loads(line)["fingerprint"] for line in samples}
    for record in point_records(read_records(directory)):    # samples of the point it was in were not taken again
        if record.fingerprint in started:
            flushed = [s for line in samples for r in [json.loads(line)]
                       if (r["fingerprint"], r["stage"]) == (record.fingerprint, "denoise_step") for s in r["samples_s"]]
            assert record.timings["denoise_step"].samples_s[: len(flushed)] == flushed

    once_more = cli("run", str(suite), "--device", "cpu", "--resume", str(directory))
    assert once_more.returncode == 0
    assert lines(directory / RECORDS) == after               # all there: nothing to measure


def test_terminated_says_how_to_go_on(tmp_path):
    run = start(variant(tmp_path, "cut"), tmp_path)
    directory = result_dir(tmp_path)
    wait_for(lambda: "[0/5]" in run.stderr.readline(), 30)
    run.terminate()
    _, stderr = run.communicate(timeout=30)
    assert run.returncode == 143
    assert stderr.strip().splitlines()[-1].endswith(f"go on with: ldt-bench run --resume {directory}")
    assert "Traceback" not in stderr


def variant(tmp_path: Path, name: str = "variant", **change) -> Path:
    path = tmp_path / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(MICRO_SUITE), "ceilings": False, **change}))
    return path


def outcomes(done: subprocess.CompletedProcess) -> dict[str, str]:
    directory = json.loads(done.stdout.splitlines()[-1])["result_dir"]
    return {r.label: f"{r.outcome}: {r.reason}" for r in point_records(read_records(Path(directory)))}


def test_what_cannot_run_is_an_outcome_and_the_suite_goes_on(tmp_path):
    """Out of memory and an attention backend without a device, then a point that works; the report says it all."""
    suite = variant(tmp_path, points=[
        {"model": "tiny", "workload": "tiny-image", "recipe": "eager-fp32", "set": {"denoiser.width": 2**18}},
        {"model": "tiny", "workload": "tiny-image", "recipe": "eager-fp32", "set": {"recipe.attention": "cudnn"}},
        {"model": "tiny", "workload": "tiny-image", "recipe": "eager-fp32"},
    ])
    done = cli("run", str(suite), "--device", "cpu", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    oom, unsupported, ok = outcomes(done).values()
    assert oom.startswith("oom: needs at least")
    assert unsupported == "skipped_unsupported: attention cudnn needs CUDA"
    assert ok.startswith(("ok", "unstable"))
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["outcomes"]["oom"] == summary["outcomes"]["skipped_unsupported"] == 1
    assert "not calibrated" in done.stderr            # no ceilings here
    assert "oom: needs at least" in Path(summary["report"]).read_text()


def test_a_point_over_its_time_is_stopped_and_the_next_one_runs(tmp_path):
    slow = {"model": "tiny", "workload": "tiny-image", "recipe": "eager-fp32",
            "set": {"denoiser.width": 2048, "denoiser.depth": 32, "workload.batch": 64}}
    suite = variant(tmp_path, point_timeout_s=12.0, points=[
        slow, {"model": "tiny", "workload": "tiny-image", "recipe": "eager-fp32"}])
    done = cli("run", str(suite), "--device", "cpu", "--out", str(tmp_path))
    assert done.returncode == 1                       # a timeout is no result
    first, second = outcomes(done).values()
    assert first == "timeout: stopped after 12 s"
    assert second.startswith(("ok", "unstable"))


def test_budget_skips_and_says_so_and_resume_measures_the_rest(tmp_path):
    suite = variant(tmp_path)
    done = cli("run", str(suite), "--device", "cpu", "--out", str(tmp_path), "--budget", "0.001s")
    assert done.returncode == 1, done.stderr          # nothing was measured
    assert set(outcomes(done).values()) == {"skipped_budget: the budget is spent"}
    summary = json.loads(done.stdout.splitlines()[-1])
    resumed = cli("run", "--device", "cpu", "--resume", summary["result_dir"])       # its own suite.json says the suite
    assert resumed.returncode == 0, resumed.stderr
    counted = json.loads(resumed.stdout.splitlines()[-1])["outcomes"]
    assert counted["ok"] + counted["unstable"] == 5


def test_a_suites_point_that_cannot_be_run_is_named_before_anything_is_measured(tmp_path):
    suite = variant(tmp_path, points=[{"model": "tiny", "workload": "tiny-clip", "recipe": "eager-fp32",
                                       "set": {"workload.frames": 20}}])
    done = cli("run", str(suite), "--device", "cpu", "--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert "nearest: 17 or 21" in done.stderr
    assert not (tmp_path / "out").exists()


def test_resume_does_not_mix_suites_or_environments(tmp_path, measured, micro_suite):
    directory, _ = measured
    other = variant(tmp_path, "other")
    done = cli("run", str(other), "--resume", str(directory))
    assert (done.returncode, "it holds suite micro, not other" in done.stderr) == (2, True)
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in (RECORDS, "suite.json"):
        (copy / name).write_text((directory / name).read_text().replace('"threads":', '"threads":9'))
    kept = (copy / "suite.json").read_bytes()
    done = cli("run", str(micro_suite), "--resume", str(copy))
    assert (done.returncode, "measured elsewhere or otherwise: threads 9" in done.stderr) == (2, True)
    assert (copy / "suite.json").read_bytes() == kept          # refused before anything is written


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
            _check_resume(directory, load(Suite, str(path)), suite_jobs(load(Suite, str(path))))
    path.write_text(yaml.safe_dump({**base, "points": [*base["points"], {**base["points"][1], "workload": "tiny-wide"}]}))
    _check_resume(directory, load(Suite, str(path)), suite_jobs(load(Suite, str(path))))


def test_what_failed_is_measured_again_on_resume(tmp_path, measured, micro_suite):
    """A worker killed by the kernel may find memory next time; the last record of a point counts."""
    directory, _ = measured
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "suite.json").write_bytes((directory / "suite.json").read_bytes())
    records = [json.loads(line) for line in lines(directory / RECORDS)]
    records[2] |= {"outcome": "oom", "reason": "killed", "timings": {}}
    (copy / RECORDS).write_text("".join(json.dumps(r) + "\n" for r in records))
    done = cli("run", str(micro_suite), "--device", "cpu", "--resume", str(copy))
    assert done.returncode == 0, done.stderr
    assert [json.loads(line) for line in lines(copy / RECORDS)][: len(records)] == records
    assert len(lines(copy / RECORDS)) == len(records) + 1
    again = point_records(read_records(copy))
    assert [r.fingerprint for r in again] == [r["fingerprint"] for r in records[1:]]
    assert all(r.outcome in ("ok", "unstable") for r in again)


def test_a_headline_is_its_own_point_and_needs_no_fit(tmp_path):
    """A user's YAML called like a preset is not the preset; a measured headline stands where too little is there to fit."""
    (tmp_path / "tiny.yaml").write_text("extends: tiny\ndescription: another\ndenoiser: {depth: 1}\n")
    stages = ["denoise_step", "vae_decode", "text_encode"]
    point = {"workload": "tiny-image", "recipe": "eager-fp32", "stages": stages}
    suite = variant(tmp_path, points=[{"model": str(tmp_path / "tiny.yaml"), **point}],
                    headline={"model": "tiny", "workload": "tiny-image", "recipe": "eager-fp32"})
    done = cli("run", str(suite), "--device", "cpu", "--out", str(tmp_path))
    assert json.loads(done.stdout.splitlines()[-1])["headline"] is None
    suite = variant(tmp_path, "own", points=[{"model": "tiny", **point}],
                    headline={"model": "tiny", "workload": "tiny-image", "recipe": "eager-fp32"})
    done = cli("run", str(suite), "--device", "cpu", "--out", str(tmp_path))
    assert json.loads(done.stdout.splitlines()[-1])["headline"]["provenance"] == "measured"
    both = variant(tmp_path, "both", points=[{"model": m, **point} for m in ("tiny", str(tmp_path / "tiny.yaml"))])
    with pytest.raises(UserError, match="two different points are called tiny tiny-image eager-fp32"):
        suite_jobs(load(Suite, str(both)))


def test_points_measured_in_turns_go_on_after_a_kill(tmp_path):
    """All samples of the group are on disk as they come; on resume they count, and nothing is sampled twice."""
    points = [{**p, "together": True} for p in yaml.safe_load(MICRO_SUITE)["points"]]
    suite = variant(tmp_path, "turns", points=points, sampling={
        "target_relative_half_width": 1e-6, "min_samples": 30, "max_samples": 60, "max_s": 0.6})
    run = start(suite, tmp_path)
    directory = result_dir(tmp_path)
    wait_for(lambda: len(lines(directory / SAMPLES)) >= 12)
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate(timeout=30)
    samples = lines(directory / SAMPLES)
    order = [(r["fingerprint"], r["stage"]) for r in map(json.loads, samples[:8])]
    assert len(set(order)) == 8                                  # eight stages had their first turn before any a second
    done = cli("run", str(suite), "--device", "cpu", "--resume", str(directory))
    assert done.returncode == 0, done.stderr
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


def test_points_that_do_not_go_together_go_alone(tmp_path):
    points = [{**p, "together": True} for p in yaml.safe_load(MICRO_SUITE)["points"][:2]]
    points.append({**points[1], "set": {"recipe.attention": "cudnn"}})           # not on a CPU
    suite = variant(tmp_path, points=points)
    done = cli("run", str(suite), "--device", "cpu", "--out", str(tmp_path))
    assert [o.split(":")[0] for o in outcomes(done).values()].count("skipped_unsupported") == 1
    measured = [r for r in point_records(read_records(Path(json.loads(done.stdout.splitlines()[-1])["result_dir"])))
                if r.outcome in ("ok", "unstable")]
    assert len(measured) == 2
    assert all(r.memory.peak_allocated for r in measured)


def test_the_worker_runs_this_code_whatever_lies_in_the_directory(tmp_path):
    (tmp_path / "einops.py").write_text("raise ImportError('not this one')")
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "__init__.py").write_text("")
    done = cli("ceilings", "--device", "cpu", "--json", cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"})
    assert done.returncode == 0, done.stderr


def test_a_worker_that_comes_back_elsewhere_ends_the_run_and_edited_code_does_not(micro_suite):
    with Worker("cpu") as worker:
        first = worker.environment
        worker._environment = first.model_copy(update={"code_version": "other"})
        worker._start()
        assert worker.environment == first
        worker._environment = first.model_copy(update={"threads": 99})
        with pytest.raises(EnvironmentFault, match="came back otherwise: threads 99"):
            worker._start()


@pytest.mark.parametrize(("outcomes_", "failed"), [
    (["ok"], False), (["ok", "oom", "skipped_budget", "skipped_unsupported"], False), (["ok", "unstable"], False),
    (["ok", "error"], True), (["ok", "timeout"], True), (["oom"], True), (["skipped_budget"], True), ([], True),
])
def test_a_run_fails_where_something_failed_or_nothing_was_measured(outcomes_, failed):
    records = [point_record().model_copy(update={"fingerprint": str(i), "outcome": o}) for i, o in enumerate(outcomes_)]
    ceilings = ceilings_record("ceilings")
    assert run_failed([ceilings, *records]) is failed
    assert run_failed([ceilings.model_copy(update={"outcome": "error"}), *records])
    assert run_failed([*(r.model_copy(update={"outcome": "error"}) for r in records), ceilings, *records]) is failed


def test_a_workers_traceback_goes_to_no_terminal(capfd):
    with Worker("cpu") as worker:
        with pytest.raises(JobFailed, match="KeyError"):
            worker.run({"job": "point"}, 60, lambda stage, samples: None)
        assert b"Traceback" in worker.chatter()
        assert worker.chatter() == b""
    assert capfd.readouterr() == ("", "")


def test_a_worker_that_does_not_start_says_why_in_one_line(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with Worker("cpu") as worker, pytest.raises(EnvironmentFault, match="did not start: .*exit code 1.; it said nothing"):
        assert worker.environment


def test_ceilings_leave_out_a_backend_that_the_device_lacks(monkeypatch):
    probed = []
    monkeypatch.setattr(bench.measure.ceilings, "measure_ceilings", lambda *args, **_: probed.append(args[3]) or ([], {}))

    def ceilings(*recipes):
        plan = {"target_relative_half_width": 0.5, "min_samples": 3, "max_samples": 6, "max_s": 0.2}
        job = {"job": "ceilings", "prior": {}, "sampling": plan, "recipes": recipes}
        return run_job(job, torch.device("cpu"), None, None)

    assert ceilings(["fp32", "auto"], ["bf16", "cudnn"])["left_out"] == "left out: attention cudnn needs CUDA"
    assert probed == [[("fp32", "auto")]]
    assert ceilings(["fp32", "auto"])["left_out"] is None
    with pytest.raises(Unsupported, match="attention cudnn needs CUDA"):
        ceilings(["bf16", "cudnn"])


def test_a_worker_killed_for_memory_is_oom_and_the_next_job_gets_a_fresh_one(micro_suite):
    suite = load(Suite, str(micro_suite))
    job = {"job": "point", "prior": {}, "sampling": suite.sampling.model_dump(mode="json"),
           "point": suite_jobs(suite)[1].point.model_dump(mode="json")}
    with Worker("cpu") as worker:
        assert worker.environment.device == "cpu"
        os.kill(worker._process.pid, signal.SIGKILL)
        with pytest.raises(JobFailed, match="signal 9") as caught:
            # A job handed to a worker that is just dying; poll() may not have seen it yet.
            worker._process.poll = lambda: None
            worker.run(job, 60, lambda stage, samples: None)
        assert caught.value.outcome == "oom"
        del worker._process.poll
        rounds = []
        result = worker.run(job, 60, lambda stage, samples: rounds.append((stage, samples)))
        assert PointRecord.model_fields["timings"]
        assert set(result["timings"]) == {"denoise_step", "vae_decode", "vae_encode", "text_encode"}
        assert {stage for stage, _ in rounds} == set(result["timings"])
