"""Points measured in turns: what one of them alone has of the memory, with a fake of the
allocator."""

import pytest
import torch

from bench.core.load import load_point
from bench.measure.device.memory import stage_memory
from bench.measure.points import together
from bench.measure.points.build import count_stages
from bench.measure.points.together import measure_together
from bench.measure.timing.clock import clock_for
from support.plans import PLAN

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


class Allocator:
    """torch.cuda's counters: what lies there, and its peak since the last reset.  A stage allocates
    for a moment."""

    def __init__(self, monkeypatch, resident: int):
        self.resident = self.peak = resident
        for name, answer in (
            ("memory_allocated", lambda device: self.resident),
            ("max_memory_allocated", lambda device: self.peak),
            ("max_memory_reserved", lambda device: self.peak + 7),
            ("mem_get_info", lambda device: (10_000 - self.peak - 50, 10_000)),
            ("reset_peak_memory_stats", self.reset),
            ("synchronize", lambda device: None),
        ):
            monkeypatch.setattr(torch.cuda, name, answer)

    def reset(self, device):
        self.peak = self.resident

    def stage(self, size: int):
        def call():
            self.peak = max(self.peak, self.resident + size)

        return call


def test_what_the_other_points_hold_is_taken_off(monkeypatch):
    """1,000 bytes lie there, 300 of them this point's (200 weights, 90 inputs, 10 of tables); 40
    and 70 come and go."""
    allocator = Allocator(monkeypatch, 1000)
    allocator.peak = 5000  # of another stage, before
    stages = {
        "denoise_step": allocator.stage(40),
        "vae_decode": allocator.stage(70),
        "text_encode": allocator.stage(5),
    }
    memory = together._memory(CUDA, stages, 200, 90, 300, "in turns")
    assert {s: p.peak_allocated for s, p in memory.by_stage.items()} == {
        "denoise_step": 340,
        "vae_decode": 370,
        "text_encode": 305,
    }
    assert {s: p.activations for s, p in memory.by_stage.items()} == {
        "denoise_step": 50,
        "vae_decode": 80,
        "text_encode": 15,
    }
    assert memory.peak_allocated == 370
    assert (memory.peak_reserved, memory.by_stage["vae_decode"].device_used) == (None, None)
    assert memory.reason.startswith("in turns: what those hold is taken off")


def test_alone_the_sentinel_is_taken_off_and_the_allocator_speaks_for_the_point(monkeypatch):
    allocator = Allocator(monkeypatch, 1000)
    allocator.stage(40)()
    seen = stage_memory(CUDA, 600, 390)  # 600 of the sentinel; 400 of the point, 390 counted
    assert (seen.peak_allocated, seen.activations, seen.peak_reserved, seen.device_used) == (
        440,
        50,
        1047,
        1090,
    )


@pytest.fixture
def points():
    return [
        load_point("tiny", "tiny-image", "eager-fp32", stages=("text_encode",)),
        load_point("tiny", "tiny-clip", "eager-fp32", stages=("text_encode", "vae_encode")),
    ]


def in_turns(points, device=CPU):
    plan = PLAN.model_copy(update={"min_samples": 2, "max_samples": 2, "max_s": 0.1})
    return measure_together(
        points,
        [count_stages(p) for p in points],
        device,
        clock_for(CPU),
        plan,
        prior=[{}, {}],
        on_round=lambda *_: None,
    )


def test_on_a_cpu_it_says_why_there_is_no_peak_and_no_replay(points):
    for measured, point in zip(in_turns(points), points, strict=True):
        timings, memory, telemetry = measured.readings
        assert set(timings) == set(telemetry) == set(point.stages)
        assert all(
            t.launch.reason == "no CUDA graphs on a CPU" and t.launch.eager_s == t.median_s
            for t in timings.values()
        )
        assert memory.peak_allocated is None
        assert (
            memory.reason
            == "measured in turns with 1 other points: the process's peak is that of all of them"
        )


def test_each_stage_runs_once_more_for_its_peak_and_then_its_replay(points, monkeypatch):
    """The whole way with every call on a CPU, and an allocator that thinks itself CUDA's: 100 bytes
    a point."""
    allocator, order = Allocator(monkeypatch, 1000), []
    build = together.build_calls

    def built(point, device):
        allocator.resident += 100
        return {s: allocator.stage(10) for s in build(point, device)[0]}, 0

    def memory(device, stages, weights, inputs, own, turns):
        order.append(("peak", *stages))
        return real(CUDA, stages, 0, inputs, own, turns)

    def launch(call, device, clock, eager_s, *, needed, free):
        order.append(("launch", needed))

    real = together._memory
    monkeypatch.setattr(together, "build_calls", built)
    monkeypatch.setattr(together, "allocated", lambda device: allocator.resident)
    monkeypatch.setattr(together, "_memory", memory)
    monkeypatch.setattr(together, "time_launch", launch)
    measured = in_turns(points)
    assert order == [
        ("peak", "text_encode"),
        ("peak", "text_encode", "vae_encode"),
        *[("launch", 110)] * 3,
    ]
    assert [m.peak_allocated for _, m, _ in (one.readings for one in measured)] == [110, 110]
