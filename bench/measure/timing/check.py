"""Is the harness's clock right?  The same call by the harness, by a bare loop and by
torch.utils.benchmark, in turns; on CUDA also by the harness without its hold
(bench.measure.timing.clock), which shows how much of a launch lies in that reading, and replayed
from a graph, where no host can be in the way.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import mean, median
from typing import Any

import torch
from torch.utils import benchmark

from bench.measure.timing.clock import HOLD_CYCLES, Clock
from bench.measure.timing.launch import MOST_REPLAYS, is_host_bound, replay_seconds
from bench.measure.timing.sampling import median_interval

TOLERANCE = 0.005  # that the harness may differ from a bare loop
ROUND_CALLS = 5


@dataclass(frozen=True)
class TimerCheck:
    """Seconds a call, and ratios to the bare loop with the interval of their median over the
    rounds."""

    harness_s: float
    bare_loop_s: float
    torch_benchmark_s: float
    harness_ratio: tuple[float, float, float]
    """Median, low, high.  The bare loop is held as the harness is: both then time what the device
    does."""
    torch_benchmark_ratio: tuple[float, float, float]
    rounds: int
    graph_replay_s: float | None
    graph_reason: str | None
    """Why there is no replay."""
    without_hold_s: float | None
    """By the harness whose start event fires on an idle device."""
    without_hold_ratio: tuple[float, float, float] | None
    hold_reason: str | None
    """Why there is nothing to show of the hold."""

    @property
    def host_bound(self) -> bool | None:
        """Does the host take longer to launch the call's kernels than the device to run them?"""
        return (
            None
            if self.graph_replay_s is None
            else is_host_bound(self.bare_loop_s, self.graph_replay_s)
        )

    @property
    def agrees(self) -> bool:
        """The median is within the tolerance, or its interval reaches into it.

        A call that is bound by its host has a head start by the hold, once, where a loop of calls
        has it once for all: the clock without a hold is then what the loop can be compared with."""
        plain = self.host_bound and self.without_hold_ratio is not None
        _, low, high = self.without_hold_ratio if plain else self.harness_ratio
        return low <= 1 + TOLERANCE and high >= 1 - TOLERANCE

    def as_dict(self) -> dict[str, Any]:
        ratios = {
            name: dict(zip(("value", "low", "high"), found, strict=True))
            if (found := getattr(self, name))
            else None
            for name in ("harness_ratio", "torch_benchmark_ratio", "without_hold_ratio")
        }
        return {
            **asdict(self),
            **ratios,
            "host_bound": self.host_bound,
            "agrees": self.agrees,
            "tolerance": TOLERANCE,
            "provenance": "measured",
        }


def check_timer(
    call: Callable[[], Any],
    device: torch.device,
    clock: Clock,
    rounds: int,
    watch: Callable[[int], None] = lambda done: None,
    unheld: Clock | None = None,
) -> TimerCheck:
    """Time `call` in rounds, each way once a round and in turning order, so that none is always
    first.

    unheld: a clock without the hold; none on a CPU."""
    ways = {
        "harness": lambda: mean(clock.time(call) for _ in range(ROUND_CALLS)),
        "bare": lambda: _bare_loop(call, device),
        "torch": lambda: (
            benchmark.Timer("call()", globals={"call": call}, num_threads=torch.get_num_threads())
            .timeit(ROUND_CALLS)
            .mean
        ),
    }
    if unheld is not None:
        ways["without hold"] = lambda: mean(unheld.time(call) for _ in range(ROUND_CALLS))
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for i in range(rounds + 1):  # the first round warms up
        for name in names[i % len(names) :] + names[: i % len(names)]:
            taken = ways[name]()
            if i:
                seconds[name].append(taken)
        watch(i)
    replay, reason = replay_seconds(call, device, clock, MOST_REPLAYS)

    def ratio(name: str) -> tuple[float, float, float]:
        ratios = sorted(a / b for a, b in zip(seconds[name], seconds["bare"], strict=True))
        low, high, _ = median_interval(ratios)
        return median(ratios), low, high

    return TimerCheck(
        harness_s=median(seconds["harness"]),
        bare_loop_s=median(seconds["bare"]),
        torch_benchmark_s=median(seconds["torch"]),
        harness_ratio=ratio("harness"),
        torch_benchmark_ratio=ratio("torch"),
        rounds=rounds,
        graph_replay_s=replay,
        graph_reason=reason,
        without_hold_s=median(seconds["without hold"]) if unheld is not None else None,
        without_hold_ratio=ratio("without hold") if unheld is not None else None,
        hold_reason=None
        if unheld is not None
        else "a CPU runs a call as it is made: nothing to hold",
    )


def _bare_loop(call: Callable[[], Any], device: torch.device) -> float:
    """What anyone would write: a pair of events, or of clock readings, around a few calls.  On CUDA
    behind the same hold as the clock's."""
    if device.type != "cuda":
        start = time.perf_counter()
        for _ in range(ROUND_CALLS):
            call()
        return (time.perf_counter() - start) / ROUND_CALLS
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    torch.cuda._sleep(HOLD_CYCLES)
    begin.record()
    for _ in range(ROUND_CALLS):
        call()
    end.record()
    torch.cuda.synchronize(device)
    return begin.elapsed_time(end) / 1e3 / ROUND_CALLS
