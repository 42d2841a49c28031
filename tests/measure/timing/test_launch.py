"""Is a stage bound by its host?  By fakes: a graph whose seconds are known, or that breaks."""

import pytest
import torch

from bench.core.load import load_point
from bench.measure.points import single as measuring
from bench.measure.points.build import count_stages
from bench.measure.points.single import measure_point
from bench.measure.timing import launch as launching
from bench.measure.timing.launch import LEAST_REPLAYS, MOST_REPLAYS, replay_seconds, time_launch
from bench.report.tables.device import launches_table, no_replays
from bench.report.tables.device import launching as marked
from bench.results.readings import Launch
from bench.results.records import PointRecord
from support.plans import PLAN
from support.records import point_record

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")


class Clock:
    """A call says itself how long it took."""

    def time(self, call) -> float:
        return call()

    def now(self) -> float:
        return 0.0


class Graph:
    """A capture that works: the replay takes its seconds, the first one more."""

    def __init__(self, seconds):
        self.seconds, self.replays, self.captured = seconds, 0, 0

    def __call__(self, call, device):
        self.captured += 1
        return self.replay

    def replay(self) -> float:
        self.replays += 1
        return self.seconds if self.replays > 1 else 10 * self.seconds


def call() -> float:
    raise AssertionError("the eager call has its samples")


@pytest.mark.parametrize(
    ("eager", "replay", "bound"),
    [(1e-3, 0.8e-3, True), (1e-3, 0.95e-3, False), (1e-3, 1.02e-3, False)],
)
def test_what_a_replay_saves_is_the_hosts(eager, replay, bound):
    graph = Graph(replay)
    seen = time_launch(call, CUDA, Clock(), eager, capture=graph)
    assert (seen.host_bound, seen.eager_s, seen.replay_s, seen.reason) == (
        bound,
        eager,
        replay,
        None,
    )
    assert seen.gap_s == pytest.approx(eager - replay)
    assert seen.gap == pytest.approx(1 - replay / eager)
    assert (graph.captured, graph.replays) == (1, MOST_REPLAYS + 1)


@pytest.mark.parametrize(
    ("eager", "replays"), [(1e-6, MOST_REPLAYS), (0.1, 5), (0.3, LEAST_REPLAYS)]
)
def test_long_calls_are_replayed_less_often(eager, replays):
    graph = Graph(eager)
    time_launch(call, CUDA, Clock(), eager, capture=graph)
    assert graph.replays == replays + 1


def fails(error):
    def capture(call, device):
        raise error

    return capture


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            RuntimeError("operation not permitted when stream is capturing\nand more"),
            "not permitted when stream is capturing",
        ),
        (torch.OutOfMemoryError("CUDA out of memory"), "CUDA out of memory"),
        (AssertionError(), "AssertionError"),
    ],
)
def test_a_capture_that_fails_is_a_reason_of_one_line(error, words):
    seen = time_launch(call, CUDA, Clock(), 1e-3, capture=fails(error))
    assert (seen.host_bound, seen.replay_s, seen.gap_s, seen.gap) == (None, None, None, None)
    assert seen.reason.startswith("not captured as a CUDA graph: ")
    assert words in seen.reason
    assert "\n" not in seen.reason


def test_a_replay_that_fails_is_one_too():
    def broken():
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    assert "illegal" in time_launch(call, CUDA, Clock(), 1e-3, capture=lambda *_: broken).reason


def test_nothing_is_captured_on_a_cpu_for_long_calls_or_where_memory_is_short():
    graph = Graph(1.0)
    assert time_launch(call, CPU, Clock(), 1e-3, capture=graph).reason == "no CUDA graphs on a CPU"
    for long in (0.31, 5.1, 57.0):
        assert (
            "over 0.3 s: not replayed"
            in time_launch(call, CUDA, Clock(), long, capture=graph).reason
        )
    crowded = time_launch(
        call, CUDA, Clock(), 1e-3, needed=81 * 10**8, free=lambda: 10**10, capture=graph
    )
    assert (
        crowded.reason
        == "not captured as a CUDA graph: its own 8.1 GB would crowd the 10 GB that are free"
    )
    assert graph.captured == 0
    assert (
        time_launch(
            call, CUDA, Clock(), 1e-3, needed=8 * 10**9, free=lambda: 10**10, capture=graph
        ).reason
        is None
    )
    assert (
        time_launch(call, CUDA, Clock(), 1e-3, needed=1, free=lambda: None, capture=graph).reason
        is None
    )

    def lost():
        raise RuntimeError("CUDA error: unspecified launch failure\n")

    assert (
        "launch failure"
        in time_launch(call, CUDA, Clock(), 1e-3, needed=1, free=lost, capture=graph).reason
    )


def test_the_timer_check_replays_the_same_way():
    assert replay_seconds(call, CUDA, Clock(), 3, Graph(0.25)) == (0.25, None)
    assert replay_seconds(call, CPU, Clock(), 3) == (None, "no CUDA graphs on a CPU")


def test_every_stage_of_a_point_says_it_after_all_samples_were_taken(monkeypatch):
    """With a clock of known seconds and a graph that takes half; the eager calls are real, on a
    CPU."""
    order = []

    class Half:
        t = 0.0

        def time(self, call):
            call()
            self.t += 0.1
            return 0.1

        def now(self):
            return self.t

    def half(call, device, clock, eager_s, *, needed, free):
        order.append("launch")
        return time_launch(call, CUDA, Clock(), eager_s, capture=Graph(eager_s / 2))

    monkeypatch.setattr(measuring, "time_launch", half)
    point = load_point("tiny", "tiny-image", "eager-fp32", stages=("text_encode", "vae_encode"))
    plan = PLAN.model_copy(update={"min_samples": 2, "max_samples": 2})
    timings, _, _ = measure_point(
        point,
        count_stages(point),
        CPU,
        Half(),
        plan,
        prior={},
        on_round=lambda stage, samples: order.append(stage),
    ).readings
    assert order.index("launch") > order.index("vae_encode")
    assert {stage: (t.launch.host_bound, t.launch.gap) for stage, t in timings.items()} == {
        "text_encode": (True, 0.5),
        "vae_encode": (True, 0.5),
    }


def launched(launch: Launch | None) -> PointRecord:
    record = point_record()
    timing = record.timings["denoise_step"].model_copy(update={"launch": launch})
    return record.model_copy(update={"timings": {"denoise_step": timing}})


def test_tables_show_the_gap_or_why_there_is_none():
    bound = launched(time_launch(call, CUDA, Clock(), 2e-3, capture=Graph(1.5e-3)))
    assert launches_table([bound]).texts == [
        ["tiny tiny-clip eager-fp32", "denoise_step", "2 ms", "1.5 ms", "0.5 ms, 25.0%", "yes"]
    ]
    assert marked(bound.timings["denoise_step"]) == "host bound: a graph replay saves 25%"
    none = launched(time_launch(call, CPU, Clock(), 2e-3))
    old = launched(None)
    assert launches_table([none, old]).texts == []
    assert no_replays([bound, none, old, none]) == ["denoise_step: no CUDA graphs on a CPU"]
    assert marked(none.timings["denoise_step"]) == marked(old.timings["denoise_step"]) == ""
    assert PointRecord.model_validate_json(bound.model_dump_json()) == bound


@pytest.mark.gpu
def test_a_real_graph_of_many_small_kernels_is_found_host_bound():
    from bench.measure.timing.clock import CudaClock

    a = torch.randn(64, device="cuda")

    def many() -> torch.Tensor:
        b = a
        for _ in range(500):
            b = b + 1
        return b

    clock = CudaClock(CUDA)
    eager = min(clock.time(many) for _ in range(5))
    with torch.inference_mode():
        assert time_launch(many, CUDA, clock, eager).host_bound is True
        big = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
        eager = sorted(clock.time(lambda: big @ big) for _ in range(5))[2]
        assert time_launch(lambda: big @ big, CUDA, clock, eager).host_bound is False
        waits = time_launch(lambda: a.sum().item(), CUDA, clock, 1e-3)
        assert waits.host_bound is None
        assert waits.reason
    torch.cuda.synchronize()
    torch.randn(1, device="cuda")
    assert launching.replay_seconds(many, CUDA, clock, 2)[0] is not None
