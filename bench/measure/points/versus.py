"""Two models (or one under two recipes) against each other: built side by side, timed in turns, one
ratio.

A round visits both, each round in the other order (ABBA), so that a machine that drifts does so for
both alike; its ratio is of the two medians in it.  The interval is of the median ratio over rounds:
a bootstrap that draws whole rounds.
"""

import gc
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch

from bench.core.specs.point import Point
from bench.core.specs.suite import Sampling
from bench.measure.device.memory import PROCESS, read_bytes, reset_peak
from bench.measure.points.build import build_calls, check_supported, first_call
from bench.measure.recipes.apply import around
from bench.measure.timing.clock import Clock
from bench.measure.timing.sampling import ROUND_S, Run

MIN_ROUNDS = 6
DRAWS = 2000
CONFIDENCE = 0.95
ENDLESS = 1_000_000


@dataclass(frozen=True)
class Versus:
    """Seconds of a stage by side, and time of b / time of a with its interval: above 1, a is
    faster."""

    a_s: list[float]
    """Median of each round's calls."""
    b_s: list[float]
    calls: tuple[int, int]
    ratio: tuple[float, float, float]
    """Median, low, high."""
    stop: str
    """rounds, or timeout."""

    @property
    def verdict(self) -> str:
        """Of a: FASTER or SLOWER where the interval leaves 1 out, else UNCLEAR."""
        _, low, high = self.ratio
        return "FASTER" if low > 1 else "SLOWER" if high < 1 else "UNCLEAR"


def measure_versus(
    a: Point,
    b: Point,
    stage: str,
    device: torch.device,
    clock: Clock,
    *,
    rounds: int,
    max_s: float,
    watch: Callable[[int], None] = lambda done: None,
) -> Versus:
    """Time `stage` of both in turns: so many rounds, or as many as `max_s` allows after MIN_ROUNDS.

    Raises Unsupported where a recipe cannot run on this device."""
    for point in (a, b):
        check_supported(point, device)
    gc.collect()
    calls = [build_calls(point, device)[0][stage] for point in (a, b)]
    with torch.inference_mode(), around(a.recipe, b.recipe):
        for point, call in zip((a, b), calls, strict=True):
            first_call(point, call, clock)
        return time_in_turns(
            [lambda call=call: clock.time(call) for call in calls],
            clock.now,
            rounds=rounds,
            max_s=max_s,
            watch=watch,
        )


def time_in_turns(
    timed: list[Callable[[], float]],
    now: Callable[[], float],
    *,
    rounds: int,
    max_s: float,
    watch: Callable[[int], None] = lambda done: None,
) -> Versus:
    """The rounds of `measure_versus`, of calls that time themselves; on any clock.

    Each visit is a round of `sampling.Run`: calls for ROUND_S, after one that is not counted and
    fills the caches (unless it is as long as the visit)."""
    plan = Sampling(
        target_relative_half_width=1e-9, min_samples=ENDLESS, max_samples=ENDLESS, max_s=max_s
    )
    runs = [Run(time_once, plan, now) for time_once in timed]
    for run in runs:
        run.round()  # warms up
        run.stop = None  # this loop says when to stop
    seconds: list[list[float]] = [[], []]
    counted, start, stop = [0, 0], now(), "rounds"
    for i in range(rounds):
        for side in ((0, 1), (1, 0))[i % 2]:
            if runs[side].warmup[-1] < ROUND_S:
                timed[side]()
            fresh = runs[side].round()
            runs[side].stop = None
            counted[side] += len(fresh)
            seconds[side].append(median(fresh))
        watch(i + 1)
        if i + 1 >= MIN_ROUNDS and i + 1 < rounds and now() - start >= max_s:
            stop = "timeout"
            break
    return Versus(
        a_s=seconds[0],
        b_s=seconds[1],
        calls=(counted[0], counted[1]),
        ratio=paired_ratio(*seconds),
        stop=stop,
    )


def paired_ratio(a_s: list[float], b_s: list[float], seed: int = 0) -> tuple[float, float, float]:
    """Median over rounds of b / a, with the percentile bootstrap's interval over whole rounds."""
    ratios = np.array(b_s) / np.array(a_s)
    drawn = np.random.default_rng(seed).choice(ratios, size=(DRAWS, len(ratios)))
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(np.median(drawn, axis=1), [tail, 100 - tail])
    return float(np.median(ratios)), float(low), float(high)


def measure_peak(point: Point, stage: str, device: torch.device) -> dict[str, Any]:
    """Peak bytes of weights, inputs and `stage`, for a process that has run nothing else.

    CUDA: of the allocator.  A CPU: what the resident set rose by since before the model was built
    (VmHWM), buffers of libraries included; null where the system does not say."""
    build_calls(
        point, torch.device("meta")
    )  # imports what is needed: diffusers' classes take 100 MB
    gc.collect()
    reset_peak(device)
    before = 0 if device.type == "cuda" else read_bytes(PROCESS, "VmRSS")
    call = build_calls(point, device)[0][stage]
    with torch.inference_mode():
        call()
        call()  # what a first call keeps for the second is part of the peak
    if device.type == "cuda":
        return {"peak_bytes": torch.cuda.max_memory_allocated(device), "source": "CUDA allocator"}
    after = read_bytes(PROCESS, "VmHWM")
    known = before is not None and after is not None
    return {
        "peak_bytes": after - before if known else None,
        "source": "VmHWM of a process of its own",
    }
