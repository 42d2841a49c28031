"""Several small points resident at once and visited in turns, so that a machine that drifts does so
for all of them.

After the turns each stage runs once more, for its peak of memory on CUDA, where what the other
points hold is taken off. On a CPU the process's peak is that of all of them, and is left null.
"""

import gc
from collections.abc import Callable
from typing import Any

import torch

from bench.core.specs.point import Point
from bench.core.specs.recipe import DTYPE_BYTES
from bench.core.specs.suite import Sampling
from bench.count.point import ModelCount
from bench.measure.attention import ran as attention_ran
from bench.measure.attention.correctness import checked
from bench.measure.device.telemetry import monitor
from bench.measure.points.single import (
    Unsupported,
    build_calls,
    check_supported,
    first_call,
    free_memory,
    room,
    stage_memory,
)
from bench.measure.recipes.apply import around, can_be_captured
from bench.measure.timing.clock import Clock
from bench.measure.timing.launch import time_launch
from bench.measure.timing.sampling import Run, take_turns
from bench.results.readings import Memory, StageMemory, StageTelemetry, Timing
from models.pipeline import PARTS_OF_STAGE

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
) -> list[tuple[dict[str, Timing], Memory, dict[str, StageTelemetry]]]:
    """Time the stages of all points in turns -> (timings, memory, telemetry) of each.

    Raises Unsupported where one of them cannot run here or they do not fit together: they are then
    measured one by one."""
    for point in points:
        check_supported(point, device)
    weights = [_weights(point, count) for point, count in zip(points, counts, strict=True)]
    peaks = [
        max(count.stages[stage].bytes_peak_activations for stage in point.stages)
        for point, count in zip(points, counts, strict=True)
    ]
    free = free_memory(device)
    if free is not None and sum(weights) + max(peaks) > MOST_OF_FREE_MEMORY * free:
        raise Unsupported(
            f"{len(points)} points together take {(sum(weights) + max(peaks)) / 1e9:.3g} GB, more"
            f" than half of the {free / 1e9:.3g} GB that are free"
        )
    gc.collect()
    runs: dict[str, Run] = {}
    calls: dict[str, Callable[[], Any]] = {}
    given, own = [], []
    timings: list[dict[str, Timing]] = []
    memory: list[Memory] = []
    firsts: dict[str, float | None] = {}
    with (
        monitor(device) as watch,
        torch.inference_mode(),
        around(*(point.recipe for point in points)),
    ):
        for i, point in enumerate(points):
            before = _allocated(device)
            stages, size = build_calls(point, device)
            stages = checked(point, stages)
            given.append(size)
            own.append(_allocated(device) - before)
            for stage in point.stages:
                key = f"{i}/{stage}"
                calls[key] = stages[stage]
                firsts[key] = first_call(point, calls[key], clock)
                runs[key] = Run(
                    lambda key=key: watch.timed(key, lambda: clock.time(calls[key])),
                    plan,
                    clock.now,
                    prior[i].get(stage),
                )
        take_turns(
            runs,
            lambda key, samples: on_round(
                int(key.partition("/")[0]), key.partition("/")[2], samples
            ),
        )
        telemetry = {
            key: watch.finish(key, len(run.warmup), calls[key], clock) for key, run in runs.items()
        }
        turns = f"measured in turns with {len(points) - 1} other points"
        for i, point in enumerate(points):
            stages = {stage: calls[f"{i}/{stage}"] for stage in point.stages}
            memory.append(_memory(device, stages, weights[i], given[i], own[i], turns))
        for i, point in enumerate(points):
            attention_ran.note(
                point, {stage: calls[f"{i}/{stage}"] for stage in point.stages}, device
            )
        for i, point in enumerate(points):  # last: a capture that fails may break the context
            timings.append({})
            for stage in point.stages:
                timing, peak = runs[f"{i}/{stage}"].timing(), memory[i].by_stage.get(stage)
                launch = None
                if can_be_captured(point.recipe, stage):
                    launch = time_launch(
                        calls[f"{i}/{stage}"],
                        device,
                        clock,
                        timing.median_s,
                        free=lambda: room(device),
                        needed=peak.activations if peak else None,
                    )
                timings[i][stage] = timing.model_copy(
                    update={"launch": launch, "compile_s": firsts[f"{i}/{stage}"]}
                )
    return [
        (timings[i], memory[i], {stage: telemetry[f"{i}/{stage}"] for stage in point.stages})
        for i, point in enumerate(points)
    ]


def _allocated(device: torch.device) -> int:
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


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
    others = _allocated(device) - own
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


def _weights(point: Point, count: ModelCount) -> int:
    parts = {PARTS_OF_STAGE[stage] for stage in point.stages}
    return sum(count.params[part] for part in parts) * DTYPE_BYTES[point.recipe.dtype]
