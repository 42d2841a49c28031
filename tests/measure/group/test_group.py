"""A group of ranks: it measures together, and whatever befalls one of them is said and cleared."""

import os
import resource
import signal

import pytest
import torch

from bench.core.load import load_point
from bench.measure.errors import Unsupported
from bench.measure.group import launch
from bench.measure.group.clock import GroupClock
from bench.measure.group.launch import why
from bench.measure.group.marks import FAILED, RUNS, WAITS, Marker, laggards, read_marks
from bench.measure.group.member import _not_timed
from bench.measure.timing.clock import CpuClock
from bench.measure.worker.process import JobFailed, Worker
from bench.measure.worker.protocol import MeasurePoint
from support.measure.groups import LONG, ranks, request


@pytest.fixture(scope="module")
def of_module():
    with pytest.MonkeyPatch.context() as patch, Worker("cpu") as worker:
        patch.setenv("LDT_BENCH_TEST_GROUP", str(os.getpid()))
        yield worker


@pytest.fixture
def worker(of_module):
    """Starts groups, and knows its environment from the first one on.  None is left behind."""
    yield of_module
    assert not ranks()


def test_two_ranks_measure_a_point_and_the_next_has_one(worker):
    rounds = []
    asked = request(ulysses=2)
    reply = worker.run(asked, 120, lambda stage, samples: rounds.extend(samples))
    timing, group = reply.timings["denoise_step"], reply.group
    assert timing.samples_s == rounds
    assert [reading.rank for reading in group.ranks] == [0, 1]
    assert group.mesh == "ulysses 2"
    for reading in group.ranks:
        # A sample is the slowest rank's, so no rank's own median is over the group's.
        assert reading.median_s["denoise_step"] <= timing.median_s
        assert reading.in_collectives_s["denoise_step"] > 0
        assert reading.peak_allocated > 0
    assert reply.sentinel.before_s > 0
    assert not ranks()
    alone = worker.run(request(), 120)
    assert alone.group is None


def test_a_rank_that_is_killed_is_named(worker):
    def kill(stage: str, samples: list[float]) -> None:
        if 1 in (there := ranks()):
            os.kill(there[1], signal.SIGKILL)

    with pytest.raises(JobFailed, match=r"rank 1 of 2 was killed \(signal 9\)") as failed:
        worker.run(request(LONG, ulysses=2), 120, kill)
    assert failed.value.outcome == "oom"  # as of one process: nobody here sent the signal


def test_a_rank_that_hangs_is_named(worker):
    def stop(stage: str, samples: list[float]) -> None:
        if 1 in (there := ranks()):
            os.kill(there[1], signal.SIGSTOP)

    with pytest.raises(JobFailed, match="rank 1 of 2 kept the others waiting") as failed:
        worker.run(request(LONG, ulysses=2), 6, stop)
    assert failed.value.outcome == "timeout"


def test_a_rank_without_memory_is_named(worker):
    def starve(stage: str, samples: list[float]) -> None:
        if 1 in (there := ranks()):
            resource.prlimit(there[1], resource.RLIMIT_AS, (2**20, 2**20))

    point = load_point(
        "tiny",
        "tiny-video",
        "eager",
        {"recipe.dtype": "fp32", "recipe.parallel": {"ulysses": 2}},
    )
    asked = MeasurePoint(
        point=point.model_copy(update={"stages": ("denoise_step",)}), sampling=LONG
    )
    with pytest.raises(JobFailed, match="rank 1 of 2: ") as failed:
        worker.run(asked, 120, starve)
    assert failed.value.outcome == "oom"


def test_more_ranks_than_cores_are_skipped(worker):
    with pytest.raises(JobFailed, match="64 ranks need 64 CPU cores") as failed:
        worker.run(request(ulysses=64), 120)
    assert failed.value.outcome == "skipped_unsupported"


def test_a_mesh_that_does_not_fit_the_point_is_unsupported():
    from bench.measure.worker.jobs import Session, measure_one

    here = Session(torch.device("cpu"), CpuClock())
    with pytest.raises(Unsupported, match="without guidance"):
        measure_one(request(cfg=2), here)
    with pytest.raises(Unsupported, match="needs a group of 2 ranks, found 1"):
        measure_one(request(ulysses=2), here)


@pytest.mark.parametrize(
    ("model", "recipe", "degrees", "hidden"),
    [
        ("tiny", "eager", {"ulysses": 2, "cfg": 2}, None),
        ("tiny", "eager", {"tensor": 2}, None),
        ("tiny", "compile-regional", {"ulysses": 2}, "compiled code"),
        ("wan-tiny", "eager", {"ulysses": 2}, "diffusers"),
        ("wan-tiny", "eager", {"cfg": 2}, None),
        ("wan-tiny", "eager", {"cfg": 2, "shard_weights": True}, "fully_shard"),
    ],
)
def test_collectives_out_of_sight_have_no_time(model, recipe, degrees, hidden):
    point = load_point(model, "tiny-video", recipe, {"recipe.parallel": degrees})
    reason = _not_timed(point, point.recipe.parallel)
    wanted = f"collectives of {hidden} are not timed one by one" if hidden else None
    assert reason == wanted


def test_a_baseline_in_turns_is_not_taken_for_the_point(monkeypatch):
    """Rank 0 of one: each call's own seconds go to the stage that is asked for."""

    class Ticks:
        times = iter((1.0, 5.0, 2.0, 6.0))

        def time(self, call):
            return next(self.times)

    monkeypatch.setattr("bench.measure.group.clock.dist.barrier", lambda group: None)
    monkeypatch.setattr(GroupClock, "_largest", lambda self, seconds: seconds + 0.5)
    monkeypatch.setattr(GroupClock, "_in_collectives", lambda self, call: call())
    clock = GroupClock(Ticks(), None, lambda state: None)
    ours, theirs = (lambda: 0.1), (lambda: 0.9)
    for call in (ours, theirs, ours, theirs):
        clock.time(call)
    clock.keep("denoise_step", [1.5, 2.5])
    assert clock.own == {"denoise_step": [1.0, 2.0]}
    assert clock.waiting == {"denoise_step": 0.1}


def test_marks_say_who_is_late(tmp_path, monkeypatch):
    answers = {}
    monkeypatch.setattr("bench.measure.group.marks._stacks", lambda folder, marks: answers)
    assert laggards(tmp_path, 2) == "all 2 ranks were at work"
    first, second = Marker(tmp_path, 0), Marker(tmp_path, 1)
    first(WAITS)
    second(RUNS)
    assert laggards(tmp_path, 3) == "ranks 1, 2 of 3 kept the others waiting"
    assert laggards(tmp_path, 2) == "rank 1 of 2 kept the others waiting"
    second(FAILED, "error", "a long reason")
    second(WAITS)  # shorter than what it is written over
    assert read_marks(tmp_path, 2)[1].state == WAITS
    assert laggards(tmp_path, 2) == "all 2 ranks wait for one another"
    answers[0] = ["File site-packages/torch/distributed/x.py"]  # and rank 1 is stopped
    assert laggards(tmp_path, 2) == "rank 1 of 2 kept the others waiting"
    first(RUNS)  # within a call, in a collective
    assert laggards(tmp_path, 2) == "rank 1 of 2 kept the others waiting"


@pytest.mark.parametrize(
    ("codes", "marks", "wanted"),
    [
        # Rank 2 was killed; rank 0 failed for want of it.
        (
            {0: 1, 2: -9},
            {0: ("error", "RuntimeError: Connection closed by peer")},
            ("oom", "rank 2 of 4 was killed (signal 9), most likely for want of memory"),
        ),
        ({1: -11}, {}, ("error", "rank 1 of 4 was killed (signal 11)")),
        # Rank 3 ran out of memory first, then rank 1 lost it.
        (
            {1: 1, 3: 1},
            {3: ("oom", "out of memory"), 1: ("error", "RuntimeError: Connection reset by peer")},
            ("oom", "rank 3 of 4: out of memory"),
        ),
        # What all say alike is nobody's own.
        (
            {0: 1},
            {rank: ("skipped_unsupported", "no such kernel") for rank in range(4)},
            ("skipped_unsupported", "no such kernel"),
        ),
        ({0: 1}, {}, ("error", "rank 0 of 4 ended with exit code 1")),
    ],
)
def test_why_a_group_ended(tmp_path, codes, marks, wanted):
    for rank, (outcome, reason) in marks.items():
        Marker(tmp_path, rank)(FAILED, outcome, reason)
    assert why(codes, tmp_path, 4) == wanted


def test_fewer_cards_than_ranks(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert launch._too_many(8, None) == "parallel: 8 ranks need 8 GPUs, this machine has 2"
    assert launch._too_many(2, "cuda") is None
