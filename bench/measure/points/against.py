"""A point beside its baseline: memory of its own, then both in turns, and how far their outputs are
apart.

Weights are random with gates that are not zero, from one seed for both; inputs too, and a sample of
a batch is what it would be alone.  So a divergence says how much the arithmetic differs, and
nothing of how a picture looks.
"""

import gc
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bench.core.specs.point import Point
from bench.core.specs.suite import Sampling
from bench.count.point import ModelCount, bytes_of_weights
from bench.count.touched import built
from bench.measure.attention import ran as attention_ran
from bench.measure.attention.correctness import checked
from bench.measure.device.memory import (
    allocated,
    free_memory,
    memory_of,
    reset_peak,
    resting,
    stage_memory,
)
from bench.measure.device.telemetry import monitor
from bench.measure.points.build import (
    build_calls,
    check_supported,
    first_call,
    said_in_one_line,
)
from bench.measure.points.divergence import divergence_of, noise_of
from bench.measure.points.single import Measured, refuse_to_swap
from bench.measure.points.whole import cold_start, timed_build
from bench.measure.recipes.apply import around
from bench.measure.timing.clock import Clock
from bench.measure.timing.sampling import Run, baseline_plan, sample, take_turns
from bench.results.readings import StageMemory, StageTelemetry, Timing
from bench.results.records import Against, BaselineNoise, Divergence, Reused

MOST_OF_FREE_MEMORY = 0.8  # that the baseline may take of what is free once the point is there
NOT_WHOLE = "measured in turns with its baseline"
NOTHING_TO_COMPARE = "neither a trajectory nor a denoising step is among the stages"

Calls = dict[str, Callable[..., Any]]
"""By stage."""


@dataclass(frozen=True)
class Pair:
    """A point, its baseline, and what is known of both before either is built."""

    point: Point
    baseline: Point
    counts: ModelCount
    baseline_counts: ModelCount
    reused: dict[str, Reused] = field(default_factory=dict)
    """Stages that the recipe leaves as the baseline's own point had them; not timed again."""

    @property
    def stages(self) -> tuple[str, ...]:
        """Those that are timed."""
        return tuple(stage for stage in self.point.stages if stage not in self.reused)

    @property
    def built(self) -> tuple[Point, Point]:
        """Both with the parts that are needed alone."""
        return built(self.point, self.reused), built(self.baseline, self.reused)


def measure_against(
    pair: Pair,
    device: torch.device,
    clock: Clock,
    plan: Sampling,
    *,
    prior: dict[str, list[float]],
    on_round: Callable[[str, list[float]], None],
) -> tuple[Measured, Against]:
    """Time the stages of a point in turns with its baseline's.

    prior, on_round: as of measure_point, of the point alone.  Raises OutOfMemory and Unsupported as
    measure_point does.  Where both do not fit at once, the baseline follows."""
    check_supported(pair.point, device)
    point, baseline = pair.built
    weights = bytes_of_weights(point, pair.counts.params)
    if device.type == "cpu":
        refuse_to_swap(point, pair.counts, weights)
    with said_in_one_line(point), around(point.recipe, baseline.recipe), torch.inference_mode():
        gc.collect()
        reset_peak(device)
        others = allocated(device)  # the sentinel's operands
        (calls, given), build_s = timed_build(lambda: _built(point, device), device, clock)
        at_rest = resting(device, others, weights + given)
        calls = checked(point, calls)
        firsts = _first_calls(point, pair.stages, calls, device, clock, others, at_rest)
        memory = memory_of(device, weights, given, firsts.peaks)
        crowded = _crowded(baseline, pair.baseline_counts, device)
        base_calls = None if crowded else _built(baseline, device)[0]
        turns = _Turns(device, clock, plan, prior, on_round)
        runs, telemetry = turns.take(pair.stages, calls, base_calls, baseline, firsts.seconds)
        attention_ran.note(point, calls, device)
        outputs = _outputs(point, calls)
        timings = {
            stage: runs[f"0/{stage}"].timing().model_copy(update={"compile_s": compile_s})
            for stage, compile_s in firsts.compiled.items()
        }
        started = cold_start(build_s, calls, timings)
        if base_calls is not None:
            base = {stage: runs[f"1/{stage}"].timing() for stage in pair.stages}
        else:
            del calls
            runs.clear()
            base_calls, base = _afterwards(baseline, pair.stages, device, clock, plan)
        divergence, noise, no_noise = _apart(baseline, outputs, base_calls, base, device)
    against = Against(
        baseline=baseline.recipe.name,
        point=pair.baseline.model_dump(mode="json"),
        in_turns=crowded is None,
        reason=crowded,
        timings=base,
        reused=pair.reused,
        divergence=divergence,
        divergence_missing=None if divergence else NOTHING_TO_COMPARE,
        noise=noise,
        noise_missing=no_noise,
    )
    return Measured(timings, memory, telemetry, started, None, NOT_WHOLE), against


def _apart(
    baseline: Point,
    outputs: dict[str, Tensor],
    base_calls: Calls,
    base: dict[str, Timing],
    device: torch.device,
) -> tuple[Divergence | None, BaselineNoise | None, str | None]:
    """The outputs against the baseline's, and the baseline against itself."""
    stage = _compared(baseline)
    if not outputs or stage is None:
        return None, None, NOTHING_TO_COMPARE
    theirs = _outputs(baseline, base_calls)
    call, call_s = base_calls[stage].call, base[stage].median_s if stage in base else 0.0
    noise, missing = noise_of(baseline, call, theirs["latents"], device, call_s)
    return divergence_of(outputs, theirs), noise, missing


def _crowded(baseline: Point, counts: ModelCount, device: torch.device) -> str | None:
    """Why the baseline does not fit beside the point that is resident."""
    activations = max(counts.stages[stage].bytes_peak_activations for stage in baseline.stages)
    needed, free = bytes_of_weights(baseline, counts.params) + activations, free_memory(device)
    if free is None or needed <= MOST_OF_FREE_MEMORY * free:
        return None
    return f"the baseline needs {needed / 1e9:.3g} GB beside it, {free / 1e9:.3g} GB are free"


def _afterwards(
    baseline: Point, stages: tuple[str, ...], device: torch.device, clock: Clock, plan: Sampling
) -> tuple[Calls, dict[str, Timing]]:
    """The baseline, built and timed once the point has gone."""
    gc.collect()
    reset_peak(device)
    calls, _ = _built(baseline, device)
    timings = {
        stage: sample(lambda stage=stage: clock.time(calls[stage]), plan, clock.now)
        for stage in stages
    }
    return calls, timings


@dataclass(frozen=True)
class _Turns:
    """How both are visited in turns."""

    device: torch.device
    clock: Clock
    plan: Sampling
    prior: dict[str, list[float]]
    on_round: Callable[[str, list[float]], None]

    def take(
        self,
        stages: tuple[str, ...],
        calls: Calls,
        base_calls: Calls | None,
        baseline: Point,
        made: dict[str, float],
    ) -> tuple[dict[str, Run], dict[str, StageTelemetry]]:
        """The runs "0/stage" of the point and "1/stage" of the baseline, timed, and the point's
        telemetry.

        made: seconds of the call that each stage of the point has behind it, which belongs to its
        warm-up."""
        clock, runs = self.clock, {}
        with monitor(self.device) as watch:

            def run(key: str, call: Callable[[], Any], plan: Sampling, *before: Any) -> Run:
                return Run(
                    lambda: watch.timed(key, lambda: clock.time(call)), plan, clock.now, *before
                )

            for stage in stages:  # stage by stage, so that those to be compared are neighbours
                ours, theirs, first = f"0/{stage}", f"1/{stage}", made[stage]
                watch.expect(ours, first)
                runs[ours] = run(ours, calls[stage], self.plan, self.prior.get(stage), [first])
                if base_calls is not None:
                    first_call(baseline, base_calls[stage], clock)
                    runs[theirs] = run(theirs, base_calls[stage], baseline_plan(self.plan))
            take_turns(runs, self._heard)
            telemetry = {}
            for stage in stages:
                own = runs[f"0/{stage}"]
                warm = len(own.warmup) - len(own.first)
                telemetry[stage] = watch.finish(f"0/{stage}", warm, calls[stage], clock)
        return runs, telemetry

    def _heard(self, key: str, samples: list[float]) -> None:
        side, _, stage = key.partition("/")
        if side == "0":
            self.on_round(stage, samples)


class _Kept:
    """A call that keeps what it returned last: a comparison of outputs then makes no call of its
    own."""

    def __init__(self, call: Callable[[], Tensor]):
        self.call = call
        self.output: Tensor | None = None

    def __call__(self) -> Tensor:
        self.output = self.call()
        return self.output


def _compared(point: Point) -> str | None:
    """The stage whose output is held against the baseline's."""
    return next((stage for stage in ("trajectory", "denoise_step") if stage in point.stages), None)


def _outputs(point: Point, calls: Calls) -> dict[str, Tensor]:
    """Latents after the whole trajectory (or the one step) and the clip they decode to, in host
    memory; nothing where neither is among the stages."""
    stage = _compared(point)
    if stage is None:
        return {}
    kept = calls[stage]
    # Nothing was kept where the stage was not timed.
    latents = kept.output if kept.output is not None else kept()
    decoded = stage == "trajectory" and "vae_decode" in point.stages
    video = {"video": calls["vae_decode"](latents).float().cpu()} if decoded else {}
    return {"latents": latents.float().cpu(), **video}


def _built(point: Point, device: torch.device) -> tuple[Calls, int]:
    with torch.inference_mode(False):  # what inference mode makes could not be trained
        calls, given = build_calls(point, device)
    stage = _compared(point)
    return calls if stage is None else {**calls, stage: _Kept(calls[stage])}, given


@dataclass(frozen=True)
class _Firsts:
    """What each stage's calls before all sampling told."""

    compiled: dict[str, float | None]
    """Seconds of the very first where the recipe compiles."""
    seconds: dict[str, float]
    """Of the one that showed the peak: the first of the warm-up."""
    peaks: dict[str, StageMemory]


def _first_calls(
    point: Point,
    stages: tuple[str, ...],
    calls: Calls,
    device: torch.device,
    clock: Clock,
    others: int,
    at_rest: int,
) -> _Firsts:
    """Each stage alone on the device: compiled where the recipe says so, then its peak memory."""
    firsts = _Firsts({}, {}, {})
    for stage in stages:
        firsts.compiled[stage] = first_call(point, calls[stage], clock)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        firsts.seconds[stage] = clock.time(calls[stage])
        if device.type == "cuda":
            firsts.peaks[stage] = stage_memory(device, others, at_rest)
    return firsts
