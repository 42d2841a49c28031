"""The process that touches the device: started, killed, gone; and what a broken context costs, by a
fake one."""

import io
import json
import os
import signal
import sys

import pytest
import torch

from bench.core.errors import EnvironmentFault
from bench.core.load import load, load_point
from bench.core.specs.point import Point
from bench.core.specs.suite import Suite
from bench.measure.errors import OutOfMemory, Unsupported
from bench.measure.worker import serve as worker
from bench.measure.worker.failures import classify
from bench.measure.worker.process import JobFailed, Worker
from bench.measure.worker.protocol import (
    CountPoint,
    MeasureCeilings,
    MeasurePeak,
    MeasurePoint,
    MeasureTogether,
    PointReply,
    wants_fresh,
)
from bench.run.jobs import suite_jobs
from support.cli import FIVE_POINTS, cli, variant
from support.paths import ROOT
from support.plans import PLAN
from support.records import environment


class Sentinel:
    """Reads 1 s as long as the context is whole."""

    whole = True

    def __init__(self, device, clock): ...

    def read(self) -> float:
        if not Sentinel.whole:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return 1.0


@pytest.fixture
def serve(monkeypatch):
    """serve(job, job, ...) -> events; each job is a function that stands in for the work."""
    monkeypatch.setattr(worker, "choose_device", lambda name: torch.device("cuda", 0))
    monkeypatch.setattr(worker, "describe", lambda device: environment())
    monkeypatch.setattr(worker, "clock_for", lambda device: None)
    monkeypatch.setattr(worker, "Sentinel", Sentinel)
    monkeypatch.setattr(Sentinel, "whole", True)
    monkeypatch.setattr(torch, "randn", lambda *shape, device: None)

    def run(*jobs) -> list[dict]:
        work = iter(jobs)
        monkeypatch.setattr(worker, "answer", lambda *args: next(work)())
        line, events = json.dumps(job().model_dump(mode="json")) + "\n", io.StringIO()
        worker.serve(io.StringIO(line * len(jobs)), events, "cuda")
        return [json.loads(line) for line in events.getvalue().splitlines()][1:]

    return run


def raising(error):
    def fails():
        raise error

    return fails


def good():
    return PointReply(tokens=1)


@pytest.mark.parametrize(
    ("error", "outcome", "ends"),
    [
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "error", True),
        (RuntimeError("CUDA error: device-side assert triggered"), "error", True),
        (RuntimeError("CUDA error: out of memory"), "oom", True),
        (
            RuntimeError(
                "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
            ),
            "oom",
            True,
        ),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 80 GiB"), "oom", False),
        (OutOfMemory("does not fit"), "oom", False),
        (Unsupported("no kernel"), "skipped_unsupported", False),
        (ValueError("a bug"), "error", True),
    ],
)
def test_after_what_may_poison_the_context_the_process_goes_and_says_so(
    serve, capsys, error, outcome, ends
):
    events = serve(raising(error), good)
    assert (events[0]["event"], events[0]["outcome"], events[0]["ends"]) == (
        "failed",
        outcome,
        ends,
    )
    assert len(events) == (1 if ends else 2)
    assert classify(error)[0] == outcome


def test_a_context_that_a_graph_broke_costs_the_sentinel_and_not_the_measurement(serve, capsys):
    def breaks():
        Sentinel.whole = False
        return PointReply(tokens=2)

    first, second = serve(good, breaks, good)
    assert (first["event"], first["tokens"], first["ends"]) == ("done", 1, False)
    assert first["sentinel"] == {"before_s": 1.0, "after_s": 1.0}
    assert (second["event"], second["tokens"], second["ends"]) == ("done", 2, True)
    assert second["sentinel"] is None


SLOW_TO_GO = """#!{python}
import json, os, sys, time
events = os.fdopen(int(sys.argv[sys.argv.index("--events-fd") + 1]), "w", buffering=1)
events.write(json.dumps({{"event": "hello", "environment": {environment}}}) + "\\n")
for line in sys.stdin:
    good = json.loads(line)["job"] == "count"
    answer = {{"event": "done" if good else "failed", "outcome": "error", "reason": "poisoned"}}
    answer |= {{"ends": not good, "weights": os.getpid()}}
    events.write(json.dumps(answer) + "\\n")
    if not good:
        time.sleep(30)        # the CUDA context of a real one takes its time to go
        sys.exit()
"""


def test_the_job_after_a_poisoned_one_gets_a_fresh_process(tmp_path, monkeypatch):
    """The old one is still there when the next job comes; handed to it, that job would be lost as
    well."""
    fake = tmp_path / "python"
    fake.write_text(
        SLOW_TO_GO.format(
            python=sys.executable, environment=repr(environment().model_dump(mode="json"))
        )
    )
    fake.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(fake))
    with Worker("cuda") as there:
        first = there.run(CountPoint(point=POINT), 20)
        with pytest.raises(JobFailed, match="poisoned"):
            there.run(job(), 20)
        second = there.run(CountPoint(point=POINT), 20)
    assert first.weights != second.weights


POINT = load_point("tiny", "tiny-image", "eager-fp32")


def quantised(how: str) -> Point:
    return POINT.model_copy(update={"recipe": POINT.recipe.model_copy(update={"quantise": how})})


def job(quantise: str = "none", **others) -> MeasurePoint:
    return MeasurePoint(point=quantised(quantise), sampling=PLAN, **others)


@pytest.mark.parametrize(
    ("asked", "fresh"),
    [
        (job(), False),
        (job("ternary"), False),
        (job("fp8"), True),
        (job("int8-weight"), True),
        (job(baseline=quantised("int8-dynamic")), True),
        (MeasureTogether(points=[POINT] * 2, sampling=PLAN, prior=[{}, {}]), False),
        (MeasurePeak(point=quantised("fp8"), stage="forward"), True),
        (CountPoint(point=quantised("fp8")), False),
        (MeasureCeilings(recipes=[("fp32", "auto")], sampling=PLAN), False),
    ],
    ids=lambda value: getattr(value, "job", str(value)),
)
def test_what_torchao_quantises_wants_a_process_of_its_own(asked, fresh):
    assert wants_fresh(asked) == fresh


ANSWERS = """#!{python}
import json, os, sys
events = os.fdopen(int(sys.argv[sys.argv.index("--events-fd") + 1]), "w", buffering=1)
events.write(json.dumps({{"event": "hello", "environment": {environment}}}) + "\\n")
for line in sys.stdin:
    skipped = json.loads(line).get("prior")
    answer = {{"event": "failed" if skipped else "done"}}
    answer |= {{"outcome": "skipped_unsupported" if skipped else "ok"}}
    answer |= {{"reason": str(os.getpid()), "note": str(os.getpid()), "weights": os.getpid()}}
    events.write(json.dumps(answer) + "\\n")
"""


def test_a_quantised_point_is_measured_between_two_restarts_and_counts_cost_none(
    tmp_path, monkeypatch
):
    fake = tmp_path / "python"
    fake.write_text(
        ANSWERS.format(
            python=sys.executable, environment=repr(environment().model_dump(mode="json"))
        )
    )
    fake.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(fake))
    jobs = [
        CountPoint(point=POINT),
        job(),
        job("fp8"),
        job("fp8"),
        CountPoint(point=POINT),
        job("int8-weight"),
        job(),
        job(),
    ]
    skips = job("fp8", prior={"skips": []})
    jobs += [skips, skips, job()]
    pids = []
    with Worker("cuda") as there:
        for asked in jobs:
            try:
                reply = there.run(asked, 20)
                pids.append(getattr(reply, "note", None) or str(reply.weights))
            except JobFailed as skipped:
                pids.append(skipped.reason)
    names = dict(zip(dict.fromkeys(pids), "abcdef", strict=False))
    assert (
        "".join(names[pid] for pid in pids) == "aabcddee" + "fff"
    )  # what is skipped leaves its process as it was


def test_the_worker_runs_this_code_whatever_lies_in_the_directory(tmp_path):
    (tmp_path / "einops.py").write_text("raise ImportError('not this one')")
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "__init__.py").write_text("")
    suite = variant(tmp_path, points=[FIVE_POINTS[1]])
    done = cli(
        "run",
        str(suite),
        "--device",
        "cpu",
        "--json",
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["outcomes"]["error"] == 0


def test_a_worker_that_comes_back_elsewhere_ends_the_run_and_edited_code_does_not(micro_suite):
    with Worker("cpu") as worker:
        first = worker.environment
        worker._environment = first.model_copy(update={"code_version": "other"})
        worker._start()
        assert worker.environment == first
        worker._environment = first.model_copy(update={"threads": 99})
        with pytest.raises(EnvironmentFault, match="came back otherwise: threads 99"):
            worker._start()


def test_a_workers_traceback_goes_to_no_terminal(capfd):
    with Worker("cpu") as worker:
        with pytest.raises(JobFailed, match="KeyError"):
            worker.run(MeasurePeak(point=POINT, stage="nowhere"), 60)
        assert b"Traceback" in worker.chatter()
        assert worker.chatter() == b""
    assert capfd.readouterr() == ("", "")


def test_a_worker_that_does_not_start_says_why_in_one_line(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with (
        Worker("cpu") as worker,
        pytest.raises(EnvironmentFault, match="did not start: .*exit code 1.; it said nothing"),
    ):
        assert worker.environment


def test_a_worker_killed_for_memory_is_oom_and_the_next_job_gets_a_fresh_one(micro_suite):
    suite = load(Suite, str(micro_suite))
    request = MeasurePoint(point=suite_jobs(suite)[1].point, sampling=suite.sampling)
    with Worker("cpu") as worker:
        assert worker.environment.device == "cpu"
        os.kill(worker._process.pid, signal.SIGKILL)
        with pytest.raises(JobFailed, match="signal 9") as caught:
            # A job handed to a worker that is just dying; poll() may not have seen it yet.
            worker._process.poll = lambda: None
            worker.run(request, 60)
        assert caught.value.outcome == "oom"
        del worker._process.poll
        rounds = []
        result = worker.run(request, 60, lambda stage, samples: rounds.append((stage, samples)))
        assert set(result.timings) == {"denoise_step", "vae_decode", "vae_encode", "text_encode"}
        assert {stage for stage, _ in rounds} == set(result.timings)
