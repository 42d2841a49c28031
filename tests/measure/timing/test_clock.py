"""What the clock asks of CUDA, in which order: by a fake of torch.cuda that writes it down."""

import pytest
import torch

from bench.measure.timing import clock as clocks
from bench.measure.timing.check import ROUND_CALLS, _bare_loop
from bench.measure.timing.clock import HOLD_CYCLES, CudaClock, clock_for, clock_without_hold

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")


@pytest.fixture
def order(monkeypatch):
    """Names of what was called, in order."""
    called = []

    class Event:
        made = 0

        def __init__(self, enable_timing):
            assert enable_timing
            self.name = ("start", "end")[Event.made % 2]
            Event.made += 1

        def record(self):
            called.append(f"{self.name}.record")

        def synchronize(self):
            called.append(f"{self.name}.synchronize")

        def elapsed_time(self, end):
            assert (self.name, end.name) == ("start", "end")
            return 250.0  # milliseconds

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: called.append("synchronize"))
    monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: called.append(f"sleep {cycles}"))
    return called


def test_the_device_is_held_before_the_start_event(order):
    """Else the event fires on an idle device, and the launch of the first kernel is in the
    reading."""
    assert clock_for(CUDA).time(lambda: order.append("call")) == 0.25
    assert order == [
        "synchronize",
        f"sleep {HOLD_CYCLES}",
        "start.record",
        "call",
        "end.record",
        "end.synchronize",
    ]


def test_without_the_hold_it_is_the_same_but_for_that(order):
    assert clock_without_hold(CUDA).time(lambda: order.append("call")) == 0.25
    assert order == ["synchronize", "start.record", "call", "end.record", "end.synchronize"]
    assert clock_without_hold(CPU) is None


def test_the_bare_loop_is_held_once_for_all_its_calls(order):
    assert _bare_loop(lambda: order.append("call"), CUDA) == 0.25 / ROUND_CALLS
    assert order == [
        "synchronize",
        f"sleep {HOLD_CYCLES}",
        "start.record",
        *["call"] * ROUND_CALLS,
        "end.record",
        "synchronize",
    ]


def test_the_hold_is_a_fifth_of_a_millisecond_on_any_card():
    """Boost clocks from an A100's 1.41 GHz to an RTX 4090's 2.52 GHz."""
    for clock_hz in (1.41e9, 1.98e9, 2.52e9):
        assert 1e-4 < HOLD_CYCLES / clock_hz < 3e-4


@pytest.mark.gpu
def test_a_short_kernel_is_timed_without_its_launch():
    a = torch.randn(1024, device="cuda")
    held, bare = CudaClock(CUDA), CudaClock(CUDA, hold_cycles=0)
    times = {
        name: sorted(c.time(lambda: a.add_(1)) for _ in range(50))[25]
        for name, c in (("held", held), ("bare", bare))
    }
    assert times["held"] <= times["bare"]
    assert clocks.clock_for(CUDA).hold_cycles == HOLD_CYCLES
