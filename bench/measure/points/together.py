"""Several small points resident at once and visited in turns, so that a machine that drifts does so
for all of them.

After the turns each stage runs once more, for its peak of memory on CUDA, where what the other
points hold is taken off. On a CPU the process's peak is that of all of them, and is left null.
"""

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from bench.core.specs.point import Point
from bench.core.specs.suite import Sampling
from bench.count.point import ModelCount, bytes_of_weights
from bench.measure.attention import ran as attention_ran
from bench.measure.attention.correctness import checked
from bench.measure.device.memory import allocated, free_memory, room, stage_memory
from bench.measure.device.telemetry import monitor
from bench.measure.errors import Unsupported
from bench.measure.points.build import build_calls, check_supported, first_call
from bench.measure.points.single import Measured
from bench.measure.points.whole import cold_start, end_to_end, timed_build
from bench.measure.recipes.apply import around, can_be_captured
from bench.measure.timing.clock import Clock
from bench.measure.timing.launch import time_launch
from bench.measure.timing.sampling import Run, take_turns
from bench.results.readings import ColdStart, EndToEnd, Memory, StageMemory, StageTelemetry, Timing

MOST_OF_FREE_MEMORY = 0.5  # that all points together may take


def measure_together(
    points: list[Point],
    counts: list[ModelCount],
    device: torch.device,
    clock: Clock,
    plan: Sampling,
    *,
    prior: list[dict[str, list[float]]],
    on_round: Callable[[int, str, list[float]], None],
) -> list[Measured]:
    """Time the stages of all points in turns -> (timings, memory, telemetry) of each.

    Raises Unsupported where one of them cannot run here or they do not fit together: they are then
    measured one by one."""
    for point in points:
        check_supported(point, device)
    pairs = zip(points, counts, strict=True)
    weights = [bytes_of_weights(point, count.params) for point, count in pairs]
    _check_room(points, counts, weights, device)
    gc.collect()
    together = around(*(point.recipe for point in points))
    with monitor(device) as watch, torch.inference_mode(), together:
        residents = [
            _Resident.build(point, held, device, clock)
            for point, held in zip(points, weights, strict=True)
        ]
        runs: dict[str, Run] = {}
        for i, resident in enumerate(residents):
            for stage, call in resident.calls.items():
                key = f"{i}/{stage}"
                runs[key] = Run(
                    lambda key=key, call=call: watch.timed(key, lambda: clock.time(call)),
                    plan,
                    clock.now,
                    prior[i].get(stage),
                )
        take_turns(runs, lambda key, samples: on_round(*_whose(key), samples))
        telemetry = _telemetry(watch, runs, residents, clock)
        turns = f"measured in turns with {len(points) - 1} other points"
        memory = [
            _memory(device, resident.calls, resident.weights, resident.inputs, resident.own, turns)
            for resident in residents
        ]
        for resident in residents:
            attention_ran.note(resident.point, resident.calls, device)
        whole = _whole_videos(residents, counts, runs, clock, plan.max_s)
        # Last, since a capture that fails may break the context.
        timings: list[dict[str, Timing]] = [{} for _ in points]
        for key, run in runs.items():
            i, stage = _whose(key)
            peak = memory[i].by_stage.get(stage)
            timings[i][stage] = residents[i].timing(stage, run.timing(), peak, device, clock)
    return [
        Measured(timings[i], memory[i], telemetry[i], resident.started(timings[i]), *whole[i])
        for i, resident in enumerate(residents)
    ]


def _telemetry(
    watch: Any, runs: dict[str, Run], residents: "list[_Resident]", clock: Clock
) -> list[dict[str, StageTelemetry]]:
    """Of each point, by stage."""
    found: list[dict[str, StageTelemetry]] = [{} for _ in residents]
    for key, run in runs.items():
        i, stage = _whose(key)
        call = residents[i].calls[stage]
        found[i][stage] = watch.finish(key, len(run.warmup), call, clock)
    return found


def _whole_videos(
    residents: "list[_Resident]",
    counts: list[ModelCount],
    runs: dict[str, Run],
    clock: Clock,
    max_s: float,
) -> list[tuple[EndToEnd | None, str | None]]:
    """As `end_to_end`, of each point."""
    each = enumerate(zip(residents, counts, strict=True))
    return [resident.whole(i, count, runs, clock, max_s) for i, (resident, count) in each]


def _whose(key: str) -> tuple[int, str]:
    """ "2/vae_decode" -> which point, and its stage."""
    index, _, stage = key.partition("/")
    return int(index), stage


def _check_room(
    points: list[Point], counts: list[ModelCount], weights: list[int], device: torch.device
) -> None:
    """Raises Unsupported where the points do not fit together."""
    peaks = [
        max(count.stages[stage].bytes_peak_activations for stage in point.stages)
        for point, count in zip(points, counts, strict=True)
    ]
    needed, free = sum(weights) + max(peaks), free_memory(device)
    if free is not None and needed > MOST_OF_FREE_MEMORY * free:
        raise Unsupported(
            f"{len(points)} points together take {needed / 1e9:.3g} GB, more"
            f" than half of the {free / 1e9:.3g} GB that are free"
        )


@dataclass
class _Resident:
    """One of the points on the device."""

    point: Point
    every: dict[str, Callable[[], Any]]
    """Also those that are not timed."""
    calls: dict[str, Callable[[], Any]]
    """By stage, in the order of the point's stages."""
    weights: int
    inputs: int
    """Bytes, as counted."""
    own: int
    """Bytes that building it allocated."""
    build_s: float
    firsts: dict[str, float | None]
    """Seconds of a stage's very first call where the recipe compiles."""

    @classmethod
    def build(cls, point: Point, weights: int, device: torch.device, clock: Clock) -> "_Resident":
        before = allocated(device)
        (every, inputs), build_s = timed_build(lambda: build_calls(point, device), device, clock)
        every = checked(point, every)
        own = allocated(device) - before
        calls = {stage: every[stage] for stage in point.stages}
        firsts = {stage: first_call(point, call, clock) for stage, call in calls.items()}
        return cls(point, every, calls, weights, inputs, own, build_s, firsts)

    def whole(
        self, index: int, counts: ModelCount, runs: dict[str, Run], clock: Clock, max_s: float
    ) -> tuple[EndToEnd | None, str | None]:
        """As `end_to_end`, of this point's runs."""
        timed = {stage: runs[f"{index}/{stage}"].timing() for stage in self.calls}
        return end_to_end(self.point, counts, self.every, timed, clock, max_s)

    def started(self, timings: dict[str, Timing]) -> ColdStart:
        """As `cold_start`."""
        return cold_start(self.build_s, self.calls, timings)

    def timing(
        self,
        stage: str,
        timing: Timing,
        peak: StageMemory | None,
        device: torch.device,
        clock: Clock,
    ) -> Timing:
        """A stage's timing with its launch beside a replay, and what compiling it took."""
        launch = None
        if can_be_captured(self.point.recipe, stage):
            launch = time_launch(
                self.calls[stage],
                device,
                clock,
                timing.median_s,
                free=lambda: room(device),
                needed=peak.activations if peak else None,
            )
        return timing.model_copy(update={"launch": launch, "compile_s": self.firsts[stage]})


def _memory(
    device: torch.device,
    stages: dict[str, Callable[[], Any]],
    weights: int,
    inputs: int,
    own: int,
    turns: str,
) -> Memory:
    """One point's memory while others are resident too.  own: bytes that building it allocated."""
    if device.type != "cuda":
        return Memory(
            weights=weights,
            inputs=inputs,
            peak_allocated=None,
            peak_reserved=None,
            reason=f"{turns}: the process's peak is that of all of them",
        )
    others = allocated(device) - own
    peaks: dict[str, StageMemory] = {}
    for stage, call in stages.items():
        torch.cuda.reset_peak_memory_stats(device)
        call()
        torch.cuda.synchronize(device)
        peaks[stage] = stage_memory(device, others, weights + inputs, alone=False)
    return Memory(
        weights=weights,
        inputs=inputs,
        peak_allocated=max(p.peak_allocated for p in peaks.values()),
        peak_reserved=None,
        by_stage=peaks,
        reason=(
            f"{turns}: what those hold is taken off, and what is reserved or in use is that of all"
            " of them"
        ),
    )
