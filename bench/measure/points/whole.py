"""What no stage shows: how long a point takes to come up, and what a whole video takes beside its
stages."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from bench.core.specs.point import Point
from bench.count.point import ModelCount
from bench.measure.timing.clock import Clock
from bench.results.readings import ColdStart, EndToEnd, Timing
from bench.results.video import calls_per_video, calls_with_trajectory

SOME = 1e-9  # a duration is over 0 on a fake clock, too
MAX_VIDEO_S = 60.0
"""A whole video that is longer by its stages is not made for its rest alone."""
STAGE_LIMITS = 10.0
"""Nor one that is longer than so many times what a stage's samples may take."""


def timed_build(build: Callable[[], Any], device: torch.device, clock: Clock) -> tuple[Any, float]:
    """What `build` gives, and its seconds; what it put on the device is there by then."""
    began = clock.now()
    made = build()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return made, max(clock.now() - began, SOME)


def cold_start(
    build_s: float, calls: Mapping[str, Callable[[], Any]], timings: Mapping[str, Timing]
) -> ColdStart:
    """Each stage's first call is the one that compiled, else the first of its warm-up, without the
    seconds that checking its numbers took."""
    first_s = {}
    for stage, timing in timings.items():
        seconds = timing.compile_s or next(iter(timing.warmup_s), None)
        if seconds is not None:
            first_s[stage] = max(seconds - getattr(calls[stage], "check_s", 0.0), SOME)
    return ColdStart(build_s=build_s, first_s=first_s, process_is_new=False)


def end_to_end(
    point: Point,
    counts: ModelCount,
    calls: Mapping[str, Callable[[], Any]],
    timings: Mapping[str, Timing],
    clock: Clock,
    max_s: float,
) -> tuple[EndToEnd | None, str | None]:
    """One whole video, timed once beside the sum of its stages; or None and why it was not made.
    max_s: that the samples of one stage may take."""
    needed = _stages(point, counts)
    absent = [stage for stage in needed if stage not in timings]
    if absent:
        return None, f"not every stage was timed: {', '.join(absent)} is missing"
    if "video" not in calls:
        return None, "an auto-regressive model has no loop of denoising steps"
    parts = {stage: n * timings[stage].median_s for stage, n in needed.items()}
    limit, total = min(MAX_VIDEO_S, STAGE_LIMITS * max_s), sum(parts.values())
    if total > limit:
        return None, f"its stages sum up to {total:.3g} s, over {limit:.3g} s"
    return EndToEnd(video_s=clock.time(calls["video"]), parts_s=parts), None


def _stages(point: Point, counts: ModelCount) -> dict[str, int]:
    """Calls of each stage of one batch of videos."""
    every = calls_per_video(point.workload, counts.stages)
    if "trajectory" not in point.stages:
        return every
    others = every.keys() - {"denoise_step"}
    return calls_with_trajectory(point.workload, ["trajectory", *sorted(others)])
