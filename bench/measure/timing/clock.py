"""Seconds of a call: device events on CUDA, perf_counter on a CPU.  The one thing that differs
between the two."""

import os
import time
from collections.abc import Callable
from typing import Any, Protocol

import torch


class Clock(Protocol):
    """What timing needs of a device."""

    def time(self, call: Callable[[], Any]) -> float:
        """Run `call` to its end on the device -> seconds."""
        ...

    def now(self) -> float:
        """Seconds on a monotonic clock, for limits."""
        ...


class CpuClock:
    """Wall time: CPU operators return when they are done."""

    def time(self, call: Callable[[], Any]) -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    def now(self) -> float:
        return time.perf_counter()


HOLD_CYCLES = (
    400_000  # 0.2 ms at 2 GHz, 0.15 ms at 2.6 GHz; longer where the card clocks lower, to no harm
)


class CudaClock:
    """Time between two events on the stream, synchronised before and after, so that nothing queued
    is left out.

    An event that is recorded on an idle device fires at once, and the 30 to 60 us that the host
    takes to launch the first kernel would be in every reading.  So the device is kept busy for a
    moment first (torch.cuda._sleep: one thread spins for so many SM cycles): the start event waits
    behind that in the stream, and the call's first kernels are queued when it fires.  A host that
    goes on to launch more slowly than the device runs is in the reading still, but for what it
    gained meanwhile, at most those 0.2 ms; a graph's replay gains the same."""

    def __init__(self, device: torch.device, hold_cycles: int = HOLD_CYCLES):
        """hold_cycles: 0 for no hold."""
        self.device, self.hold_cycles = device, hold_cycles
        self.start, self.end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def time(self, call: Callable[[], Any]) -> float:
        torch.cuda.synchronize(self.device)
        if self.hold_cycles:
            torch.cuda._sleep(self.hold_cycles)
        self.start.record()
        call()
        self.end.record()
        self.end.synchronize()
        return self.start.elapsed_time(self.end) / 1e3  # milliseconds

    def now(self) -> float:
        return time.perf_counter()


def clock_for(device: torch.device) -> Clock:
    return CudaClock(device) if device.type == "cuda" else CpuClock()


def clock_without_hold(device: torch.device) -> Clock | None:
    """To show what the hold changes; None on a CPU, where there is none."""
    return CudaClock(device, hold_cycles=0) if device.type == "cuda" else None


SLOWDOWN = "LDT_BENCH_TEST_SLOWDOWN"


class SlowedClock:
    """A test hook: each call is followed by busy waiting for (factor - 1) of its duration, within
    what is timed, so that `ldt-bench compare` can be shown a slow-down of known size."""

    def __init__(self, clock: Clock, factor: float, device: torch.device):
        self.clock, self.factor, self.device = clock, factor, device

    def time(self, call: Callable[[], Any]) -> float:
        def slowed() -> None:
            start = time.perf_counter()
            call()
            if self.device.type == "cuda":
                torch.cuda.synchronize(
                    self.device
                )  # the event that ends the timing is recorded after the wait
            end = start + self.factor * (time.perf_counter() - start)
            while time.perf_counter() < end:
                pass

        return self.clock.time(slowed)

    def now(self) -> float:
        return self.clock.now()


def planted_slowdown(clock: Clock, device: torch.device) -> tuple[Clock, str | None]:
    """The clock of the stages (the ceilings keep the true one: they are the control), and what the
    record is to say of it; nothing unless LDT_BENCH_TEST_SLOWDOWN is set.  Raises ValueError for
    what is no factor of at least 1."""
    text = os.environ.get(SLOWDOWN)
    if not text:
        return clock, None
    try:
        factor = float(text)
    except ValueError:
        factor = 0.0
    if not 1 <= factor <= 100:
        raise ValueError(f"{SLOWDOWN}={text[:20]!r} is not a factor from 1 to 100")
    return SlowedClock(
        clock, factor, device
    ), f"not a true time: slowed {factor:g} times by {SLOWDOWN}, a test hook"
