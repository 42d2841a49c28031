"""Seconds of a call: device events on CUDA, perf_counter on a CPU.  The one thing that differs between the two."""

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


class CudaClock:
    """Time between two events on the stream, synchronised before and after, so that nothing queued is left out."""

    def __init__(self, device: torch.device):
        self.device = device
        self.start, self.end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def time(self, call: Callable[[], Any]) -> float:
        torch.cuda.synchronize(self.device)
        self.start.record()
        call()
        self.end.record()
        self.end.synchronize()
        return self.start.elapsed_time(self.end) / 1e3        # milliseconds

    def now(self) -> float:
        return time.perf_counter()


def clock_for(device: torch.device) -> Clock:
    return CudaClock(device) if device.type == "cuda" else CpuClock()
