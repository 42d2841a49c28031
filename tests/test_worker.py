"""The process that touches the device: what a broken context costs, on a CUDA device that is a fake."""

import io
import json
import sys

import pytest
import torch
from test_fit import environment

from bench.measure import clock, sentinel, worker
from bench.measure import environment as surroundings
from bench.measure.point import OutOfMemory, Unsupported
from bench.measure.process import JobFailed, Worker
from bench.measure.worker import classify


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
    monkeypatch.setattr(surroundings, "choose_device", lambda name: torch.device("cuda", 0))
    monkeypatch.setattr(surroundings, "describe", lambda device: environment())
    monkeypatch.setattr(clock, "clock_for", lambda device: None)
    monkeypatch.setattr(sentinel, "Sentinel", Sentinel)
    monkeypatch.setattr(Sentinel, "whole", True)
    monkeypatch.setattr(torch, "randn", lambda *shape, device: None)

    def run(*jobs) -> list[dict]:
        work = iter(jobs)
        monkeypatch.setattr(worker, "run_job", lambda *args: next(work)())
        events = io.StringIO()
        worker.serve(io.StringIO('{"job": "point"}\n' * len(jobs)), events, "cuda")
        return [json.loads(line) for line in events.getvalue().splitlines()][1:]
    return run


def raising(error):
    def job():
        raise error
    return job


def good():
    return {"tokens": 1}


@pytest.mark.parametrize(("error", "outcome", "ends"), [
    (RuntimeError("CUDA error: an illegal memory access was encountered"), "error", True),
    (RuntimeError("CUDA error: device-side assert triggered"), "error", True),
    (RuntimeError("CUDA error: out of memory"), "oom", True),
    (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "oom", True),
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 80 GiB"), "oom", False),
    (OutOfMemory("does not fit"), "oom", False), (Unsupported("no kernel"), "skipped_unsupported", False),
    (ValueError("a bug"), "error", True),
])
def test_after_what_may_poison_the_context_the_process_goes_and_says_so(serve, capsys, error, outcome, ends):
    events = serve(raising(error), good)
    assert (events[0]["event"], events[0]["outcome"], events[0]["ends"]) == ("failed", outcome, ends)
    assert len(events) == (1 if ends else 2)
    assert classify(error)[0] == outcome


def test_a_context_that_a_graph_broke_costs_the_sentinel_and_not_the_measurement(serve, capsys):
    def breaks():
        Sentinel.whole = False
        return {"tokens": 2}

    assert serve(good, breaks, good) == [
        {"event": "done", "tokens": 1, "ends": False, "sentinel": {"before_s": 1.0, "after_s": 1.0}},
        {"event": "done", "tokens": 2, "ends": True, "sentinel": None}]


SLOW_TO_GO = """#!{python}
import json, os, sys, time
events = os.fdopen(int(sys.argv[sys.argv.index("--events-fd") + 1]), "w", buffering=1)
events.write(json.dumps({{"event": "hello", "environment": {environment}}}) + "\\n")
for line in sys.stdin:
    what = json.loads(line)["job"]
    events.write(json.dumps({{"event": "done" if what == "good" else "failed", "outcome": "error", "reason": "poisoned",
                              "ends": what == "bad", "process": os.getpid()}}) + "\\n")
    if what == "bad":
        time.sleep(30)        # the CUDA context of a real one takes its time to go
        sys.exit()
"""


def test_the_job_after_a_poisoned_one_gets_a_fresh_process(tmp_path, monkeypatch):
    """The old one is still there when the next job comes; handed to it, that job would be lost as well."""
    fake = tmp_path / "python"
    fake.write_text(SLOW_TO_GO.format(python=sys.executable, environment=repr(environment().model_dump(mode="json"))))
    fake.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(fake))
    with Worker("cuda") as there:
        first = there.run({"job": "good"}, 20, lambda *_: None)
        with pytest.raises(JobFailed, match="poisoned"):
            there.run({"job": "bad"}, 20, lambda *_: None)
        second = there.run({"job": "good"}, 20, lambda *_: None)
    assert first["process"] != second["process"]
    assert "ends" not in first
