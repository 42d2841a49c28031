"""One point: count it, build it, time its stages.  The same code on a CPU and on an H100."""

import gc
from collections.abc import Callable
from dataclasses import dataclass

import torch

from bench.core.specs.model import TOKEN_STAGES
from bench.core.specs.point import Point
from bench.core.specs.suite import Sampling
from bench.count.point import ModelCount, bytes_of_weights
from bench.measure.attention import ran as attention_ran
from bench.measure.attention.correctness import checked
from bench.measure.device.memory import (
    allocated,
    free_memory,
    memory_of,
    reset_peak,
    resting,
    room,
    stage_memory,
)
from bench.measure.device.telemetry import monitor
from bench.measure.errors import OutOfMemory
from bench.measure.points.build import (
    build_calls,
    check_supported,
    first_call,
    said_in_one_line,
)
from bench.measure.points.whole import cold_start, end_to_end, timed_build
from bench.measure.recipes.apply import around, can_be_captured
from bench.measure.timing.clock import Clock
from bench.measure.timing.launch import time_launch
from bench.measure.timing.sampling import sample
from bench.results.readings import ColdStart, EndToEnd, Memory, StageMemory, StageTelemetry, Timing


@dataclass(frozen=True)
class Measured:
    """What the device gave of a point."""

    timings: dict[str, Timing]
    memory: Memory
    telemetry: dict[str, StageTelemetry]
    cold_start: ColdStart
    end_to_end: EndToEnd | None
    end_to_end_missing: str | None

    @property
    def readings(self) -> tuple[dict[str, Timing], Memory, dict[str, StageTelemetry]]:
        """Timings and telemetry by stage, and memory."""
        return self.timings, self.memory, self.telemetry


def measure_point(
    point: Point,
    counts: ModelCount,
    device: torch.device,
    clock: Clock,
    plan: Sampling,
    *,
    prior: dict[str, list[float]],
    on_round: Callable[[str, list[float]], None],
) -> Measured:
    """Time the point's stages.

    prior: samples already taken, by stage; on_round(stage, new samples) is called as they come.
    Raises OutOfMemory and Unsupported, WrongNumbers where attention is not right at this size (its
    first call is checked before any sample); anything else is the model's own error."""
    check_supported(point, device)
    weights = bytes_of_weights(point, counts.params)
    if device.type == "cpu":
        refuse_to_swap(point, counts, weights)
    with said_in_one_line(point), around(point.recipe):
        return _measure(point, counts, device, clock, plan, prior, on_round)


def _measure(
    point: Point,
    counts: ModelCount,
    device: torch.device,
    clock: Clock,
    plan: Sampling,
    prior: dict[str, list[float]],
    on_round: Callable[[str, list[float]], None],
) -> Measured:
    gc.collect()
    reset_peak(device)
    others = allocated(device)  # the sentinel's operands
    weights = bytes_of_weights(point, counts.params)
    (calls, given), build_s = timed_build(lambda: build_calls(point, device), device, clock)
    at_rest = resting(device, others, weights + given)
    calls = checked(point, calls)
    timings: dict[str, Timing] = {}
    telemetry: dict[str, StageTelemetry] = {}
    peaks: dict[str, StageMemory] = {}
    firsts = {}
    with monitor(device) as watch, torch.inference_mode():
        for stage in point.stages:
            firsts[stage] = first_call(point, calls[stage], clock)
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            timings[stage] = sample(
                lambda stage=stage: watch.timed(stage, lambda: clock.time(calls[stage])),
                plan,
                clock.now,
                prior=prior.get(stage),
                on_round=lambda samples, stage=stage: on_round(stage, samples),
            )
            if device.type == "cuda":
                peaks[stage] = stage_memory(device, others, at_rest)
            telemetry[stage] = watch.finish(
                stage, len(timings[stage].warmup_s), calls[stage], clock
            )
        whole, no_whole = end_to_end(point, counts, calls, timings, clock, plan.max_s)
        attention_ran.note(point, calls, device)
        launch = {
            stage: time_launch(
                calls[stage],
                device,
                clock,
                timings[stage].median_s,
                free=lambda: room(device),
                needed=peaks[stage].activations if stage in peaks else None,
            )
            for stage in timings
            if can_be_captured(point.recipe, stage)
        }
    timings = {
        stage: timing.model_copy(update={"launch": launch.get(stage), "compile_s": firsts[stage]})
        for stage, timing in timings.items()
    }
    memory = memory_of(device, weights, given, peaks)
    started = cold_start(build_s, calls, timings)
    return Measured(timings, memory, telemetry, started, whole, no_whole)


def refuse_to_swap(point: Point, counts: ModelCount, weights: int) -> None:
    """A CPU host that runs out of memory takes the machine with it, so what cannot fit is not
    tried."""
    # The peak of token stages holds the key-value cache, which is filled before anything is timed.
    largest = max(
        (
            counts.stages[stage].bytes_peak_activations
            if stage in TOKEN_STAGES
            else counts.stages[stage].bytes_largest_operator
        )
        for stage in point.stages
    )
    available = free_memory(torch.device("cpu"))
    if available is not None and weights + largest > 0.9 * available:
        raise OutOfMemory(
            f"needs at least {(weights + largest) / 1e9:.3g} GB (weights and its largest operator),"
            f" {available / 1e9:.3g} GB are free; not tried"
        )
