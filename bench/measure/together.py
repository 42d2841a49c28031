"""Several small points resident at once and visited in turns, so that a machine that drifts does so for all of them.

What one point alone would have of the peak memory cannot be told then, and is left null.
"""

import gc
from collections.abc import Callable
from typing import Any

import torch

from bench.core.records import Memory, StageTelemetry, Timing
from bench.core.spec import DTYPE_BYTES, Point, Sampling
from bench.count.count import ModelCount
from bench.measure.clock import Clock
from bench.measure.point import Unsupported, build_calls, free_memory
from bench.measure.sampling import Run, take_turns
from bench.measure.sdpa import sdpa_backend, unsupported_reason
from bench.measure.telemetry import monitor
from models.pipeline import PARTS_OF_STAGE

MOST_OF_FREE_MEMORY = 0.5      # that all points together may take


def measure_together(
    points: list[Point], counts: list[ModelCount], device: torch.device, clock: Clock, plan: Sampling, *,
    prior: list[dict[str, list[float]]], on_round: Callable[[int, str, list[float]], None],
) -> list[tuple[dict[str, Timing], Memory, dict[str, StageTelemetry]]]:
    """Time the stages of all points in turns -> (timings, memory, telemetry) of each.

    Raises Unsupported where one of them cannot run here or they do not fit together: they are then measured one by one."""
    for point in points:
        reason = unsupported_reason(point.recipe.attention, device)
        if reason:
            raise Unsupported(reason)
    weights = [_weights(point, count) for point, count in zip(points, counts, strict=True)]
    peaks = [max(count.stages[stage].bytes_peak_activations for stage in point.stages)
             for point, count in zip(points, counts, strict=True)]
    free = free_memory(device)
    if free is not None and sum(weights) + max(peaks) > MOST_OF_FREE_MEMORY * free:
        raise Unsupported(f"{len(points)} points together take {(sum(weights) + max(peaks)) / 1e9:.3g} GB, more than half "
                          f"of the {free / 1e9:.3g} GB that are free")
    gc.collect()
    runs: dict[str, Run] = {}
    calls: dict[str, Callable[[], Any]] = {}
    given = []
    with monitor(device) as watch, torch.inference_mode():
        for i, point in enumerate(points):
            stages, size = build_calls(point, device)
            given.append(size)
            for stage in point.stages:
                key = f"{i}/{stage}"
                calls[key] = _under(stages[stage], point.recipe.attention)
                runs[key] = Run(lambda key=key: watch.timed(key, lambda: clock.time(calls[key])), plan, clock.now,
                                prior[i].get(stage))
        take_turns(runs, lambda key, samples: on_round(int(key.partition("/")[0]), key.partition("/")[2], samples))
        telemetry = {key: watch.finish(key, len(run.warmup), calls[key], clock) for key, run in runs.items()}
    return [
        ({stage: runs[f"{i}/{stage}"].timing() for stage in point.stages},
         Memory(weights=weights[i], inputs=given[i], peak_allocated=None, peak_reserved=None,
                reason=f"measured in turns with {len(points) - 1} other points"),
         {stage: telemetry[f"{i}/{stage}"] for stage in point.stages})
        for i, point in enumerate(points)
    ]


def _under(call: Callable[[], Any], attention: str) -> Callable[[], Any]:
    """The call held to its own SDPA backend: points in turns may differ in it."""
    if attention == "auto":
        return call

    def held() -> Any:
        with sdpa_backend(attention):
            return call()
    return held


def _weights(point: Point, count: ModelCount) -> int:
    parts = {PARTS_OF_STAGE[stage] for stage in point.stages}
    return sum(count.params[part] for part in parts) * DTYPE_BYTES[point.recipe.dtype]
