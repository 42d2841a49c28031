"""A point beside its baseline: memory of its own, then both in turns, and how far their outputs are
apart.

Weights are random with gates that are not zero, from one seed for both; inputs too, and a sample of
a batch is what it would be alone.  So a divergence says how much the arithmetic differs, and
nothing of how a picture looks.
"""

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.core.specs.point import Point
from bench.core.specs.recipe import DTYPE_BYTES
from bench.core.specs.suite import Sampling
from bench.count.point import ModelCount
from bench.count.touched import built
from bench.measure.attention import ran as attention_ran
from bench.measure.attention.correctness import checked
from bench.measure.device.telemetry import monitor
from bench.measure.points.single import (
    build_calls,
    check_supported,
    first_call,
    free_memory,
    memory_of,
    refuse_to_swap,
    reset_peak,
    resting,
    said_in_one_line,
    stage_memory,
)
from bench.measure.recipes.apply import around
from bench.measure.timing.clock import Clock
from bench.measure.timing.sampling import Run, baseline_plan, sample, take_turns
from bench.results.readings import Memory, StageMemory, StageTelemetry, Timing
from bench.results.records import Against, Divergence, Reused
from models.pipeline import PARTS_OF_STAGE

MOST_OF_FREE_MEMORY = 0.8  # that the baseline may take of what is free once the point is there

Measured = tuple[dict[str, Timing], Memory, dict[str, StageTelemetry], Against]


def measure_against(
    point: Point,
    baseline: Point,
    counts: ModelCount,
    baseline_counts: ModelCount,
    device: torch.device,
    clock: Clock,
    plan: Sampling,
    *,
    prior: dict[str, list[float]],
    on_round: Callable[[str, list[float]], None],
    reused: dict[str, Reused] | None = None,
) -> Measured:
    """Time the stages of a point in turns with its baseline's -> (timings, memory, telemetry, the
    comparison).

    reused: stages that the recipe leaves as the baseline's own point had them; they are not timed
    again. Raises OutOfMemory and Unsupported as measure_point does.  Where both do not fit at once,
    the baseline follows."""
    check_supported(point, device)
    reused = reused or {}
    stages = tuple(stage for stage in point.stages if stage not in reused)
    point, whole, baseline = built(point, reused), baseline, built(baseline, reused)
    weights = _weights(point, counts)
    if device.type == "cpu":
        refuse_to_swap(point, counts, weights)
    with said_in_one_line(point), around(point.recipe, baseline.recipe), torch.inference_mode():
        gc.collect()
        reset_peak(device)
        others = (
            torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
        )  # the sentinel's operands
        calls, given = _built(point, device)
        calls = checked(point, calls)
        firsts = _first_calls(
            point, stages, calls, device, clock, others, resting(device, others, weights + given)
        )
        memory = memory_of(device, weights, given, firsts.peaks)
        needed = _weights(baseline, baseline_counts) + max(
            baseline_counts.stages[stage].bytes_peak_activations for stage in baseline.stages
        )
        free = free_memory(device)
        crowded = free is not None and needed > MOST_OF_FREE_MEMORY * free
        base_calls = None if crowded else _built(baseline, device)[0]
        runs, telemetry = _in_turns(
            point,
            baseline,
            stages,
            calls,
            base_calls,
            firsts.seconds,
            device,
            clock,
            plan,
            prior,
            on_round,
        )
        attention_ran.note(point, calls, device)
        outputs = _outputs(point, calls)
        timings = {
            stage: (
                runs[f"0/{stage}"].timing().model_copy(update={"compile_s": firsts.compiled[stage]})
            )
            for stage in stages
        }
        if base_calls is None:
            del calls
            runs.clear()
            gc.collect()
            reset_peak(device)
            base_calls, _ = _built(baseline, device)
            base = {
                stage: sample(lambda stage=stage: clock.time(base_calls[stage]), plan, clock.now)
                for stage in stages
            }
        else:
            base = {stage: runs[f"1/{stage}"].timing() for stage in stages}
        divergence = divergence_of(outputs, _outputs(baseline, base_calls)) if outputs else None
    return (
        timings,
        memory,
        telemetry,
        Against(
            baseline=baseline.recipe.name,
            point=whole.model_dump(mode="json"),
            in_turns=not crowded,
            reason=(
                f"the baseline needs {needed / 1e9:.3g} GB beside it, {free / 1e9:.3g} GB are free"
                if crowded
                else None
            ),
            timings=base,
            reused=reused,
            divergence=divergence,
            divergence_missing=(
                None
                if divergence
                else "neither a trajectory nor a denoising step is among the stages"
            ),
        ),
    )


def _in_turns(
    point: Point,
    baseline: Point,
    stages: tuple[str, ...],
    calls: dict[str, Callable[..., Any]],
    base_calls: dict[str, Callable[..., Any]] | None,
    made: dict[str, float],
    device: torch.device,
    clock: Clock,
    plan: Sampling,
    prior: dict[str, list[float]],
    on_round: Callable[[str, list[float]], None],
) -> tuple[dict[str, Run], dict[str, StageTelemetry]]:
    """The runs "0/stage" of the point and "1/stage" of the baseline, timed, and the point's
    telemetry.

    made: seconds of the call that each stage of the point has behind it, which belongs to its
    warm-up."""
    with monitor(device) as watch:
        runs = {}
        for stage in stages:  # stage by stage, so that those to be compared are neighbours
            watch.expect(f"0/{stage}", made[stage])
            runs[f"0/{stage}"] = _run(
                watch, f"0/{stage}", calls[stage], clock, plan, prior.get(stage), [made[stage]]
            )
            if base_calls is not None:
                first_call(baseline, base_calls[stage], clock)
                runs[f"1/{stage}"] = _run(
                    watch, f"1/{stage}", base_calls[stage], clock, baseline_plan(plan), None, []
                )

        def heard(key: str, samples: list[float]) -> None:
            if key.startswith("0/"):
                on_round(key.partition("/")[2], samples)

        take_turns(runs, heard)
        telemetry = {}
        for stage in stages:
            run = runs[f"0/{stage}"]
            telemetry[stage] = watch.finish(
                f"0/{stage}", len(run.warmup) - len(run.first), calls[stage], clock
            )
    return runs, telemetry


def divergence_of(outputs: dict[str, Tensor], baseline: dict[str, Tensor]) -> Divergence:
    """latents (B, C, T, H, W) and, where decoded, video (B, 3, F, H, W), of the samples that both
    have."""
    samples = min(outputs["latents"].shape[0], baseline["latents"].shape[0])
    ours, theirs = (side["latents"][:samples].double() for side in (outputs, baseline))
    relative = ((ours - theirs).norm() / theirs.norm()).item()
    cosine = torch.nn.functional.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0).item()
    psnr = None
    if "video" in outputs and "video" in baseline:
        ours_px, theirs_px = (side["video"][:samples].double() for side in (outputs, baseline))
        mse = (ours_px - theirs_px).square().mean().item()
        peak = (theirs_px.max() - theirs_px.min()).item()
        psnr = 10 * torch.tensor(peak**2 / mse).log10().item() if mse > 0 else None
    return Divergence(
        relative_l2=relative,
        cosine=cosine,
        psnr_db=psnr,
        identical=relative == 0.0,
        samples=samples,
    )


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


def _outputs(point: Point, calls: dict[str, Callable[..., Any]]) -> dict[str, Tensor]:
    """Latents after the whole trajectory (or the one step) and the clip they decode to, in host
    memory; nothing where neither is among the stages."""
    stage = _compared(point)
    if stage is None:
        return {}
    kept = calls[stage]
    latents = (
        kept.output if kept.output is not None else kept()
    )  # None where the stage was not timed
    decoded = stage == "trajectory" and "vae_decode" in point.stages
    video = {"video": calls["vae_decode"](latents).float().cpu()} if decoded else {}
    return {"latents": latents.float().cpu(), **video}


def _built(point: Point, device: torch.device) -> tuple[dict[str, Callable[..., Any]], int]:
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
    calls: dict[str, Callable[..., Any]],
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


def _run(
    watch: Any,
    key: str,
    call: Callable[[], Any],
    clock: Clock,
    plan: Sampling,
    prior: list[float] | None,
    first: list[float],
) -> Run:
    return Run(lambda: watch.timed(key, lambda: clock.time(call)), plan, clock.now, prior, first)


def _weights(point: Point, count: ModelCount) -> int:
    parts = {PARTS_OF_STAGE[stage] for stage in point.stages}
    return sum(count.params[part] for part in parts) * DTYPE_BYTES[point.recipe.dtype]
