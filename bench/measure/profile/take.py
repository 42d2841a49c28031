"""Profile one stage of a point: torch's profiler over some calls, in turns with plain ones."""

import gc
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from bench.core.specs.point import Point
from bench.count.point import DTYPES, on_meta, stage_request
from bench.count.trace import Op, trace
from bench.measure.device.environment import describe
from bench.measure.points.build import build_calls, check_supported
from bench.measure.probes.rates import quick_rates
from bench.measure.profile.events import (
    CALL,
    Event,
    by_module,
    by_operator,
    of_outermost,
    slices,
)
from bench.measure.profile.marks import marked, named_from
from bench.measure.recipes.apply import around, is_compiled
from bench.measure.timing.clock import Clock
from bench.results.profile import ModuleSpent, OperatorSpent, Profile, Rates
from models.denoiser import blocks_of
from models.pipeline import PARTS_OF_STAGE, VideoPipeline
from models.stages import stage_calls

WARM_UP, RATES = 3, 2


@dataclass(frozen=True)
class Taken:
    """What the profiled calls gave."""

    roots: list[Event]
    """One tree for each call."""
    profiled_s: list[float]
    plain_s: list[float]

    @property
    def record_s(self) -> float:
        """What recording one event takes the host: what the profiled calls are longer by, over
        their events."""
        longer = sum(self.profiled_s) - sum(self.plain_s)
        return max(longer, 0.0) / sum(root.events for root in self.roots)


def profile_stage(
    point: Point,
    stage: str,
    device: torch.device,
    clock: Clock,
    *,
    calls: int,
    trace_path: Path | None = None,
    watch: Callable[[str], None] = lambda said: None,
) -> Profile:
    """trace_path: where the last profiled call's Chrome trace goes.  watch: hears what is done.

    Raises Unsupported where the recipe cannot run on this device."""
    check_supported(point, device)
    watch("counting")
    counted = _counted(point, stage)
    watch(f"building {point.model.name}")
    gc.collect()
    with around(point.recipe):
        built, _ = build_calls(point, device)
        compiled = is_compiled(point.recipe, stage)
        call, modules = built[stage], _modules(_pipeline_of(built), stage, counted, point)
        with torch.inference_mode():
            calls_of = _Calls(call, modules, not compiled, device, clock)
            taken = calls_of.take(calls, trace_path, watch)
    watch("what this device reaches")
    rates = _rates(device, clock, point.recipe.dtype)
    on_cuda = device.type == "cuda"
    return Profile(
        model=point.model.name,
        workload=point.workload.name,
        recipe=point.recipe.name,
        stage=stage,
        environment=describe(device),
        weights="real" if point.model.weights else "random",
        step_s=median(taken.plain_s),
        profiled_s=mean(taken.profiled_s),
        calls=calls,
        flops=sum(2 * op.macs for op in counted),
        modules=_by_module(taken, [] if compiled else counted, set(modules), on_cuda),
        operators=_by_operator(taken, on_cuda),
        rates=rates,
        compiled=compiled,
    )


def _rates(device: torch.device, clock: Clock, dtype: str) -> Rates:
    """The best of a few short readings: a ceiling is not what a disturbed second gave."""
    read = [quick_rates(device, clock, [dtype]) for _ in range(RATES)]
    return Rates(
        gemm_flops_per_s=max(r["gemm_flops_per_s"][dtype] for r in read),
        copy_bytes_per_s=max(r["copy_bytes_per_s"] for r in read),
    )


def _counted(point: Point, stage: str) -> list[Op]:
    """The stage's operators, each with its module, on meta."""
    pipeline, inputs = on_meta(point.model, point.workload, DTYPES[point.recipe.dtype])
    pipeline.guidance = point.recipe.guidance
    request = stage_request(point.model, point.workload, seed=0, train=stage == "train_step")
    return trace(stage_calls(pipeline, inputs, request)[stage]).ops


def _pipeline_of(built: dict[str, Callable]) -> VideoPipeline:
    return built["vae_decode"].__wrapped__.__self__.pipeline


def _modules(
    pipeline: VideoPipeline, stage: str, counted: list[Op], point: Point
) -> dict[str, nn.Module]:
    """Those whose time is told apart."""
    part = {"denoiser": [pipeline.denoiser], "vae": [pipeline.vae]}
    parts = part.get(PARTS_OF_STAGE[stage], pipeline.text_encoders)
    roots = {op.module.partition(".")[0] for op in counted}
    found: dict[str, nn.Module] = {}
    for module in parts:
        closed: list[nn.Module] = []
        if point.recipe.compile == "regional":
            closed = blocks_of(module)
        elif is_compiled(point.recipe, stage):
            closed = [module]
        found |= named_from(module, roots, closed)
    return found


@dataclass(frozen=True)
class _Calls:
    """A stage's call, and what is marked in it."""

    call: Callable[[], Any]
    modules: dict[str, nn.Module]
    attention: bool
    """Attention is marked: not in compiled code, which would be compiled anew."""
    device: torch.device
    clock: Clock

    def take(self, calls: int, trace_path: Path | None, watch: Callable[[str], None]) -> Taken:
        """Calls with the profiler in turns with calls without it."""
        activities = [ProfilerActivity.CPU]
        if self.device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        plain_s: list[float] = []
        profiled_s: list[float] = []
        roots: list[Event] = []
        self._warm_up()
        for i in range(calls + 1):  # the profiler's first start takes longer, and is not counted
            watch(f"call {i} of {calls}")
            plain = self.clock.time(self.call)
            with self._marked(), profile(activities=activities, acc_events=True) as taken:
                seconds = self.clock.time(self._called)
            if i == 0:
                continue
            plain_s.append(plain)
            profiled_s.append(seconds)
            roots.append(_tree(taken.events()))
        if trace_path is not None:
            taken.export_chrome_trace(str(trace_path))
        return Taken(roots, profiled_s, plain_s)

    def _warm_up(self) -> None:
        for _ in range(WARM_UP):
            self.call()
        with self._marked():
            self.call()

    def _marked(self) -> AbstractContextManager[None]:
        return marked(self.modules, self.attention)

    def _called(self) -> None:
        with record_function(CALL):
            self.call()


def _tree(events: Any) -> Event:
    """The call's own event, with all that ran within it on its thread."""
    made: dict[int, Event] = {}
    for e in events:
        if str(e.device_type).endswith("CPU"):
            launched = [(k.name, k.duration / 1e6) for k in e.kernels]
            start, end = e.time_range.start / 1e6, e.time_range.end / 1e6
            made[id(e)] = Event(e.name, start, end, launched)
    for e in events:
        if id(e) in made and e.cpu_parent is not None and id(e.cpu_parent) in made:
            made[id(e.cpu_parent)].children.append(made[id(e)])
    return next(event for event in made.values() if event.name == CALL)


def _by_module(
    taken: Taken, counted: list[Op], modules: set[str], on_cuda: bool
) -> list[ModuleSpent]:
    """Seconds of each module and kind of operator, with the work that was counted there."""
    seconds: dict[tuple[str, str], float] = {}
    calls: dict[tuple[str, str], int] = {}
    n = len(taken.roots)
    for root in taken.roots:
        found = slices(of_outermost(root), kernels=on_cuda, record_s=taken.record_s)
        for key, (spent, times) in by_module(found).items():
            seconds[key] = seconds.get(key, 0.0) + spent
            calls[key] = calls.get(key, 0) + times
    work = _work(counted, modules)
    nothing = (0, 0, 0) if counted else (None, None, None)  # of compiled code
    return [
        ModuleSpent(
            module=module,
            kind=kind,
            seconds=seconds.get((module, kind), 0.0) / n,
            calls=calls.get((module, kind), 0) / n,
            flops=of[0],
            bytes_modelled_min=of[1],
            bytes_modelled_max=of[2],
        )
        for module, kind in dict.fromkeys([*work, *seconds])
        for of in (work.get((module, kind), nothing),)
    ]


def _work(counted: list[Op], modules: set[str]) -> dict[tuple[str, str], tuple[int, int, int]]:
    """(module, kind) -> FLOPs, bytes of the operands and results, bytes run unfused."""
    work: dict[tuple[str, str], tuple[int, int, int]] = {}
    for op in counted:
        key = (_marked_above(op.module, modules), op.kind)
        flops, low, high = work.get(key, (0, 0, 0))
        in_and_out = op.bytes_in + op.bytes_out
        work[key] = (flops + 2 * op.macs, low + in_and_out, high + op.unfused_bytes)
    return work


def _marked_above(module: str, modules: set[str]) -> str:
    """The nearest module with a mark; "" where none of them has one."""
    while module and module not in modules:
        module = module.rpartition(".")[0]
    return module


def _by_operator(taken: Taken, on_cuda: bool) -> list[OperatorSpent]:
    """Every operator (on CUDA: kernel) by its name, the longest first."""
    n = len(taken.roots)
    every = [
        piece
        for root in taken.roots
        for piece in slices(root, kernels=on_cuda, record_s=taken.record_s)
    ]
    rows = [
        OperatorSpent(name=name, kind=kind, seconds=seconds / n, calls=calls / n)
        for (name, kind), (seconds, calls) in by_operator(every).items()
    ]
    return sorted(rows, key=lambda row: -row.seconds)
