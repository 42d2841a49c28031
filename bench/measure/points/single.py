"""One point: build it, count it, time its stages.  The same code on a CPU and on an H100."""

import contextlib
import gc
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch.utils._pytree import tree_leaves

from bench.core.specs.model import TOKEN_STAGES, has_control, with_denoiser
from bench.core.specs.point import Point
from bench.core.specs.recipe import DTYPE_BYTES
from bench.core.specs.suite import Sampling
from bench.count.point import DTYPES, ModelCount, count_point
from bench.count.trajectory import trajectory_count
from bench.measure.attention import ran as attention_ran
from bench.measure.attention.correctness import checked
from bench.measure.attention.fastest import Fastest, fastest_attention
from bench.measure.device.machine import this_machine
from bench.measure.device.telemetry import monitor
from bench.measure.recipes.apply import (
    around,
    can_be_captured,
    carry_out,
    held,
    is_compiled,
    under,
    unsupported,
)
from bench.measure.timing.clock import Clock, clock_for
from bench.measure.timing.launch import time_launch
from bench.measure.timing.sampling import sample
from bench.results.readings import Memory, StageMemory, StageTelemetry, Timing
from models.pipeline import PARTS_OF_STAGE, Drafter, build_pipeline, example_inputs, stage_calls
from models.spec import DiffusersDenoiser

WEIGHTS_SEED, INPUTS_SEED = 0, 1


class OutOfMemory(Exception):
    """The point does not fit; the text says how much was wanted where that is known."""


class Unsupported(Exception):
    """The point cannot run on this device; the text says why."""


def count_stages(point: Point) -> ModelCount:
    """Counts of every stage, forward and denoise_step included.  Raises Unsupported where the
    denoiser's class does not take the recipe's cache."""
    counted = count_point(point)
    if "trajectory" in point.stages:
        try:
            counted.stages["trajectory"] = trajectory_count(point, counted.stages["denoise_step"])
        except ValueError as error:
            raise Unsupported(str(error)) from None
    return counted


def measure_point(
    point: Point,
    counts: ModelCount,
    device: torch.device,
    clock: Clock,
    plan: Sampling,
    *,
    prior: dict[str, list[float]],
    on_round: Callable[[str, list[float]], None],
) -> tuple[dict[str, Timing], Memory, dict[str, StageTelemetry]]:
    """Time the point's stages.

    prior: samples already taken, by stage; on_round(stage, new samples) is called as they come.
    Raises OutOfMemory and Unsupported, WrongNumbers where attention is not right at this size (its
    first call is checked before any sample); anything else is the model's own error."""
    check_supported(point, device)
    parts = {PARTS_OF_STAGE[stage] for stage in point.stages}
    weights = sum(counts.params[part] for part in parts) * DTYPE_BYTES[point.recipe.dtype]
    if device.type == "cpu":
        refuse_to_swap(point, counts, weights)
    with said_in_one_line(point), around(point.recipe):
        return _measure(point, device, clock, plan, weights, prior, on_round)


def check_supported(point: Point, device: torch.device) -> None:
    """Raises Unsupported with the reason, where a point's recipe cannot run here."""
    reason = unsupported(point.recipe, this_machine(device))
    if reason:
        raise Unsupported(reason)


@contextlib.contextmanager
def said_in_one_line(point: Point) -> Iterator[None]:
    """What torch raises for want of memory or of a kernel, as OutOfMemory and Unsupported."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(str(error).splitlines()[0]) from None
    except RuntimeError as error:
        if "No available kernel" in str(
            error
        ):  # SDPA held to a backend that does not take this head size or dtype
            raise Unsupported(
                f"SDPA backend {point.recipe.attention} has no kernel for {_heads(point)} in "
                f"{point.recipe.dtype} on this device"
            ) from None
        # The CPU allocator has no exception of its own.
        if "DefaultCPUAllocator" in str(error):
            raise OutOfMemory(str(error).splitlines()[0]) from None
        raise


def _measure(
    point: Point,
    device: torch.device,
    clock: Clock,
    plan: Sampling,
    weights: int,
    prior: dict[str, list[float]],
    on_round: Callable[[str, list[float]], None],
) -> tuple[dict[str, Timing], Memory, dict[str, StageTelemetry]]:
    gc.collect()
    reset_peak(device)
    others = (
        torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    )  # the sentinel's operands
    calls, given = build_calls(point, device)
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
    return timings, memory_of(device, weights, given, peaks), telemetry


def first_call(point: Point, call: Callable[[], object], clock: Clock) -> float | None:
    """Seconds of a stage's very first call where the recipe compiles, so that they are in no
    sample; else None."""
    return clock.time(call) if getattr(call, "compiled", point.recipe.compiles) else None


def build_calls(point: Point, device: torch.device) -> tuple[dict[str, Callable[..., object]], int]:
    """Build the point's parts and inputs on the device -> its stages as calls, held to the recipe's
    settings, and bytes of the inputs."""
    model, workload, dtype = point.model, point.workload, DTYPES[point.recipe.dtype]
    pipeline = build_pipeline(
        model.denoiser,
        model.vae,
        model.text_encoders,
        device=device,
        dtype=dtype,
        seed=WEIGHTS_SEED,
        stages=point.stages,
    )
    if point.recipe.draft is not None and "trajectory" in point.stages:
        pipeline.draft = build_draft(point, device)
    try:
        carry_out(pipeline, point.recipe)
    except ValueError as error:  # a class that diffusers' hooks do not take
        raise Unsupported(str(error)) from None
    inputs = example_inputs(
        pipeline,
        batch=workload.batch,
        channels=model.denoiser.in_channels,
        latent_shape=model.latent_shape(workload),
        device=device,
        dtype=dtype,
        seed=INPUTS_SEED,
    )
    calls = stage_calls(
        pipeline,
        inputs,
        frames=workload.frames,
        height=workload.height,
        width=workload.width,
        guided=workload.guidance == "cfg",
        steps=workload.steps,
        seed=INPUTS_SEED,
        encoded_frames=workload.encoded_frames,
        control=has_control(model),
        chunk=point.recipe.vae_chunk,
        tiling=point.recipe.vae_tile,
        train="train_step" in point.stages,
        sampler=(
            point.recipe.sampler_config(workload.steps) if "trajectory" in point.stages else None
        ),
    )
    return hold(point, calls, device), _bytes(vars(inputs))


def hold(
    point: Point, calls: dict[str, Callable[..., object]], device: torch.device
) -> dict[str, Callable[..., object]]:
    """The stages' calls under the recipe's settings.  Each says its `recipe`, with the attention
    backend that `fastest` chose and the `candidates_s` it chose from, and whether it is
    `compiled`."""
    recipe, raced = point.recipe, Fastest(point.recipe.attention)
    if recipe.attention == "fastest":
        if (
            any(PARTS_OF_STAGE[stage] == "denoiser" for stage in point.stages)
            and "forward" in calls
        ):
            with under(recipe):
                raced = fastest_attention(calls["forward"], this_machine(device), clock_for(device))
        else:
            raced = Fastest("auto", reason="no denoiser that denoises to choose a backend by")
        recipe = recipe.model_copy(update={"attention": raced.backend})
    made = {}
    for stage, call in calls.items():
        made[stage] = held(call, recipe)
        vars(made[stage]).update(
            recipe=recipe,
            candidates_s=raced.seconds,
            reason=raced.reason,
            compiled=is_compiled(recipe, stage),
        )
    return made


def build_draft(point: Point, device: torch.device) -> Drafter:
    """The small model of a recipe's draft."""
    assert point.recipe.draft is not None
    model = with_denoiser(point.model, point.recipe.draft.denoiser)
    small = build_pipeline(
        model.denoiser,
        model.vae,
        (),
        device=device,
        dtype=DTYPES[point.recipe.dtype],
        seed=WEIGHTS_SEED,
        stages=("forward",),
    )
    return Drafter(small.denoiser, point.recipe.draft.schedule)


def _heads(point: Point) -> str:
    denoiser = point.model.denoiser
    public = isinstance(denoiser, DiffusersDenoiser)
    return f"the heads of {denoiser.diffusers}" if public else f"head_dim {denoiser.head_dim}"


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
    available = _meminfo("MemAvailable")
    if available is not None and weights + largest > 0.9 * available:
        raise OutOfMemory(
            f"needs at least {(weights + largest) / 1e9:.3g} GB (weights and its largest operator),"
            f" {available / 1e9:.3g} GB are free; not tried"
        )


def room(device: torch.device) -> int | None:
    """As free_memory, with what the allocator only keeps for later given back first."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return free_memory(device)


def free_memory(device: torch.device) -> int | None:
    """Bytes that could still be taken; None where the system does not say."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else _meminfo("MemAvailable")


def _meminfo(key: str) -> int | None:
    try:
        match = re.search(
            rf"^{key}:\s+(\d+) kB$", Path("/proc/meminfo").read_text(), flags=re.MULTILINE
        )
    except OSError:
        return None
    return int(match[1]) * 1024 if match else None


def reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with contextlib.suppress(
            OSError
        ):  # where it cannot be reset, the peak is the process's so far
            Path(f"/proc/{os.getpid()}/clear_refs").write_text("5")  # resets VmHWM (proc(5))


def _bytes(inputs: object) -> int:
    """Of the tensors in a nest of containers; a view adds nothing to its storage."""
    tensors = [t for t in tree_leaves(inputs) if isinstance(t, torch.Tensor)]
    return sum(
        {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values()
    )


def resting(device: torch.device, others: int, counted: int) -> int:
    """Bytes of weights and inputs as they lie: quantised ones and those in host memory take less
    than is counted."""
    return (
        min(counted, torch.cuda.memory_allocated(device) - others)
        if device.type == "cuda"
        else counted
    )


def stage_memory(
    device: torch.device, others: int, at_rest: int, *, alone: bool = True
) -> StageMemory:
    """Peaks since they were last reset.  others: bytes allocated that are none of the point's;
    at_rest: its weights and inputs; alone: no other point is resident, so that the allocator's and
    the device's use say something of this one."""
    peak = torch.cuda.max_memory_allocated(device) - others
    reserved = used = None
    if alone:
        reserved = torch.cuda.max_memory_reserved(device)
        with contextlib.suppress(RuntimeError):
            free, total = torch.cuda.mem_get_info(device)
            used = total - free
    return StageMemory(
        peak_allocated=peak,
        peak_reserved=reserved,
        device_used=used,
        activations=max(peak - at_rest, 0),
    )


def memory_of(
    device: torch.device, weights: int, inputs: int, peaks: dict[str, StageMemory]
) -> Memory:
    if device.type == "cuda":
        return Memory(
            weights=weights,
            inputs=inputs,
            peak_allocated=max(p.peak_allocated for p in peaks.values()),
            peak_reserved=max(p.peak_reserved or 0 for p in peaks.values()),
            by_stage=peaks,
            reason=None,
        )
    try:
        peak = re.search(
            r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), flags=re.MULTILINE
        )
    except OSError:
        peak = None
    return Memory(
        weights=weights,
        inputs=inputs,
        peak_allocated=int(peak[1]) * 1024 if peak else None,
        peak_reserved=None,
        reason="a CPU has no caching allocator" if peak else "no /proc/self/status on this system",
    )
