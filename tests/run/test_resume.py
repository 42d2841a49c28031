"""Interrupted, killed, resumed, elsewhere: nothing measured is lost, repeated or mixed."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import yaml

from bench.calibrate.make import calibrate
from bench.commands.run import _finish
from bench.core.errors import UserError
from bench.core.load import load
from bench.core.specs.suite import Suite
from bench.report.result import read_result
from bench.results.store import CALIBRATION, RECORDS, SAMPLES, Store, point_records, read_records
from bench.run.jobs import suite_jobs
from bench.run.resume import check_resume
from support.cli import FIVE_POINTS, MICRO_SUITE, variant
from support.paths import ROOT
from support.records import record as ceilings_record


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.is_file() else []


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
def test_interrupted_and_resumed(tmp_path, sent, here, only_svg):
    """Stages last half a second, so that the last is far off when the signal comes after the second
    record."""
    suite = variant(
        tmp_path,
        "cut",
        sampling={
            "target_relative_half_width": 1e-6,
            "min_samples": 3,
            "max_samples": 100_000,
            "max_s": 0.5,
        },
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
    assert 2 <= len(before) < 5
    samples = lines(directory / SAMPLES)

    code, _, stderr = here("run", str(suite), "--device", "cpu", "--resume", str(directory))
    assert code == 0, stderr
    after = lines(directory / RECORDS)
    assert after[: len(before)] == before  # nothing lost
    fingerprints = [json.loads(line)["fingerprint"] for line in after]
    assert len(set(fingerprints)) == len(fingerprints) == 5  # nothing repeated
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

    assert here("run", str(suite), "--device", "cpu", "--resume", str(directory))[0] == 0
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
    for name in (RECORDS, "suite.json"):
        (copy / name).write_text(
            (directory / name).read_text().replace('"threads":', '"threads":9')
        )
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
            check_resume(directory, load(Suite, str(path)), suite_jobs(load(Suite, str(path))))
    path.write_text(
        yaml.safe_dump(
            {**base, "points": [*base["points"], {**base["points"][1], "workload": "tiny-wide"}]}
        )
    )
    check_resume(directory, load(Suite, str(path)), suite_jobs(load(Suite, str(path))))


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
            "min_samples": 30,
            "max_samples": 60,
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


def elsewhere(directory: Path, copy: Path) -> Path:
    """The first three records of a result as if another machine had made them, and rounds of the
    next point from there."""
    copy.mkdir()
    (copy / "suite.json").write_bytes((directory / "suite.json").read_bytes())
    records = [json.loads(line) for line in lines(directory / RECORDS)]
    for record in records:
        record["environment"]["threads"] += 9
    (copy / RECORDS).write_text("".join(json.dumps(r) + "\n" for r in records[:-1]))
    there = (
        type(read_records(copy)[0].environment).model_validate(records[-1]["environment"]).digest()
    )
    (copy / SAMPLES).write_text(
        json.dumps(
            {
                "fingerprint": records[-1]["fingerprint"],
                "stage": "denoise_step",
                "samples_s": [123.0, 124.0],
                "environment": there,
            }
        )
        + "\n"
    )
    return copy


def test_environments_are_mixed_when_told_and_never_within_a_record(
    tmp_path, measured, here, only_svg
):
    directory, _ = measured
    copy = elsewhere(directory, tmp_path / "copy")
    code, _, err = here("run", "--device", "cpu", "--resume", str(copy))
    assert (code, "--mix-environments" in err) == (2, True)
    code, _, err = here("run", "--device", "cpu", "--resume", str(copy), "--mix-environments")
    assert code == 0, err
    assert "environments are mixed in it: threads" in err
    *before, last = read_records(copy)
    threads = last.environment.threads
    assert {r.environment.threads for r in before} == {threads + 9}  # each record keeps its own
    assert (
        max(last.timings["denoise_step"].samples_s) < 100
    )  # the other machine's samples are not continued
    assert "Not all of one environment" in (copy / "report.md").read_text()
    # Also where only an earlier record is unlike.
    code, _, err = here("run", "--device", "cpu", "--resume", str(copy))
    assert (code, "measured elsewhere or otherwise: threads" in err) == (2, True)
    code, _, err = here("run", "smoke", "--mix-environments")
    assert (code, "goes with --resume alone" in err) == (2, True)


def test_samples_of_elsewhere_are_not_continued_though_no_record_was_finished(tmp_path):
    with Store(tmp_path / "result") as store:
        store.append_samples("a", "denoise_step", [1.0], "here")
        store.append_samples("a", "denoise_step", [2.0], "there")
        store.append_samples("a", "denoise_step", [3.0])  # older results do not say
        assert store.prior_samples("here") == {"a": {"denoise_step": [1.0, 3.0]}}
        assert store.prior_samples() == {"a": {"denoise_step": [1.0, 2.0, 3.0]}}


def test_a_digest_is_of_what_a_result_depends_on():
    first = ceilings_record().environment
    assert first.digest() == first.model_copy(update={"memory_bytes": 1}).digest()
    for name, value in (
        ("driver", "other"),
        ("threads", 99),
        ("code_version", "other"),
        ("device_uuid_hash", "other"),
    ):
        assert first.digest() != first.model_copy(update={name: value}).digest()


def test_a_result_of_two_devices_keeps_no_calibration_of_one(tmp_path, measured, monkeypatch):
    """calibrate refuses it, and the file that a run on the first device left would be taken for
    this result's."""
    monkeypatch.setattr(
        "bench.report.write.write_report", lambda directory, for_print: directory / "report.md"
    )
    directory, _ = measured
    copy, said = tmp_path / "copy", []
    copy.mkdir()
    for name in (RECORDS, "suite.json", CALIBRATION):
        (copy / name).write_bytes((directory / name).read_bytes())
    records = [json.loads(line) for line in lines(copy / RECORDS)]
    records[-1]["environment"]["device_name"] = "another"
    (copy / RECORDS).write_text("".join(json.dumps(r) + "\n" for r in records))
    _finish(copy, said.append)
    assert "records of several devices" in said[0]
    assert not (copy / CALIBRATION).exists()


def on_a_card(directory: Path, copy: Path, card: str | None, **other) -> Path:
    """A copy of a result, cut before its last point, as if a card had made it and begun that
    point."""
    copy.mkdir()
    (copy / "suite.json").write_bytes((directory / "suite.json").read_bytes())
    records = [json.loads(line) for line in lines(directory / RECORDS)]
    for record in records:
        record["environment"] |= {"device_uuid_hash": card, **other}
    (copy / RECORDS).write_text("".join(json.dumps(r) + "\n" for r in records[:-1]))
    begun = type(read_records(copy)[0].environment).model_validate(records[-1]["environment"])
    (copy / SAMPLES).write_text(
        json.dumps(
            {
                "fingerprint": records[-1]["fingerprint"],
                "stage": "denoise_step",
                "samples_s": [123.0],
                "environment": begun.digest(),
            }
        )
        + "\n"
    )
    return copy


def resume_on(copy: Path, card: str, monkeypatch) -> list[str]:
    """Go on with a result on another card, in this process -> the warnings.  The worker's
    environment is made up."""
    from bench.measure.worker.process import Worker
    from bench.run.suite import SuiteRun

    started = Worker._start

    def start(self) -> None:
        self._environment = None
        started(self)
        self._environment = self._environment.model_copy(update={"device_uuid_hash": card})

    monkeypatch.setattr(Worker, "_start", start)
    suite = Suite.model_validate_json((copy / "suite.json").read_bytes())
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        SuiteRun(suite=suite, device="cpu", root=copy.parent, resume=copy).measure()
    return [str(w.message) for w in said]


def test_another_card_of_the_same_kind_goes_on_and_each_record_says_its_own(
    tmp_path, measured, monkeypatch
):
    directory, _ = measured
    copy = on_a_card(directory, tmp_path / "copy", "aaaa")
    before = len(lines(copy / RECORDS))
    said = resume_on(copy, "bbbb", monkeypatch)
    assert any(
        "measured on 2 cards of one kind: aaaa, bbbb; this is bbbb" in words for words in said
    )
    assert any(
        "begun on another card or with other code, and measured anew" in words for words in said
    )
    *first, last = read_records(copy)
    assert (len(first), {r.environment.device_uuid_hash for r in first}) == (before, {"aaaa"})
    assert last.environment.device_uuid_hash == "bbbb"
    assert (
        123.0 not in last.timings["denoise_step"].samples_s
    )  # the half-measured point started anew
    assert read_result(copy).mixed[-1] == "2 cards of one kind: aaaa, bbbb"
    with pytest.warns(UserWarning, match="measured on 2 cards of one kind: aaaa, bbbb"):
        calibrate(copy)


def test_another_kind_of_card_is_refused(tmp_path, measured, monkeypatch):
    directory, _ = measured
    copy = on_a_card(directory, tmp_path / "copy", "aaaa", device_name="another kind")
    with pytest.raises(UserError, match="device_name another kind"):
        resume_on(copy, "bbbb", monkeypatch)


def test_a_worker_that_comes_back_on_another_card_is_not_gone_on_with(monkeypatch):
    """Within a run the card does not change under it; --resume says what can go on."""
    from bench.core.errors import EnvironmentFault
    from bench.measure.worker import process

    with process.Worker("cpu") as worker:
        first = worker.environment
        worker._environment = first.model_copy(update={"device_uuid_hash": "aaaa"})
        monkeypatch.setattr(
            process.Environment,
            "model_validate",
            lambda data: first.model_copy(update={"device_uuid_hash": "bbbb"}),
        )
        with pytest.raises(
            EnvironmentFault, match="came back otherwise: 2 cards of one kind: aaaa, bbbb"
        ):
            worker._start()
