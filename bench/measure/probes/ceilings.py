"""What this device reaches: matrix products, attention, 3D convolution, and memory across sizes, by
the probes of `bench.measure.probes.kernels`."""

import gc
from collections.abc import Callable
from typing import Any

import torch

from bench.core.specs.suite import Sampling
from bench.measure.attention.ran import family_ran
from bench.measure.device.memory import room
from bench.measure.device.telemetry import Monitor, monitor
from bench.measure.probes.kernels import Planned, planned
from bench.measure.recipes.apply import precision
from bench.measure.timing.clock import Clock
from bench.measure.timing.sampling import sample
from bench.results.readings import StageTelemetry
from bench.results.records import Probe

LONGEST_CALL_S = 1.0
"""Of the long attention: an H100 takes 0.12 to 0.2 s, and five calls are made."""


def measure_ceilings(
    device: torch.device,
    clock: Clock,
    plan: Sampling,
    recipes: list[tuple[str, str]],
    *,
    prior: dict[str, list[float]],
    on_round: Callable[[str, list[float]], None],
    seed: int = 0,
) -> tuple[list[Probe], dict[str, StageTelemetry], list[str]]:
    """Run every probe for each (dtype, SDPA backend) -> the probes, telemetry by their kind, and
    why others are missing.

    `prior` and `on_round` are keyed by probe, as in sampling.  A probe that fails costs itself
    alone; one that breaks the CUDA context costs those after it too.  Raises what the first one
    raised where none could be measured."""
    probes: list[Probe] = []
    first_error: Exception | None = None
    chosen, left_out = planned(device, recipes, seed, room(device))
    with monitor(device) as watch, torch.inference_mode():
        for probe in chosen:
            if why := _too_long(probe, probes):
                left_out.append(why)
                continue
            try:
                probes.append(
                    _timed(probe, device, watch, clock, plan, prior.get(probe.key), on_round)
                )
                continue
            except Exception as error:  # a kernel, a library or the allocator, in many ways
                first_error = first_error or error.with_traceback(None)  # that holds operands
                line = (str(error).strip().splitlines() or [type(error).__name__])[0]
                left_out.append(f"{probe.label}: {line}")
            gc.collect()
            if not context_is_whole(device):
                left_out.append("that broke the CUDA context: the probes after it were left out")
                break
        if not probes and first_error is not None:
            raise first_error
        kinds = dict.fromkeys(done.kind for done in probes)
        return probes, {kind: watch.finish(kind, 0) for kind in kinds}, left_out


def _timed(
    probe: Planned,
    device: torch.device,
    watch: Monitor,
    clock: Clock,
    plan: Sampling,
    prior: list[float] | None,
    on_round: Callable[[str, list[float]], None],
) -> Probe:
    """How long a probe takes, and of attention the family of kernels that ran."""
    call, kind = probe.make(), probe.fields["kind"]
    with precision(probe.fields["dtype"]):
        timing = sample(
            lambda: watch.timed(kind, lambda: clock.time(call)),
            probe.plan(plan),
            clock.now,
            prior=prior,
            on_round=lambda samples: on_round(probe.key, samples),
        )
        ran, missing = family_ran(call, device) if kind == "attention" else (None, None)
    return Probe(**probe.fields, backend_ran=ran, backend_ran_missing=missing, timing=timing)


def context_is_whole(device: torch.device) -> bool:
    """Can the device still be used, after something failed on it?"""
    if device.type != "cuda":
        return True
    try:
        torch.cuda.empty_cache()
        torch.zeros(1, device=device)
        torch.cuda.synchronize(device)
    except RuntimeError:
        return False
    return True


def _too_long(probe: Planned, done: list[Probe]) -> str | None:
    """Why a long probe is not tried: by the rate of the largest of its kind before it."""
    if probe.sampled != "few":
        return None
    same = ("kind", "dtype", "backend")
    before = [p for p in done if all(getattr(p, name) == probe.fields[name] for name in same)]
    if not before:
        return f"{probe.label}: nothing smaller of its kind was measured"
    call_s = probe.fields["flops"] / before[-1].rate
    return f"{probe.label}: would take {call_s:.1f} s a call" if call_s > LONGEST_CALL_S else None


def planned_probes(
    device: str, recipes: list[tuple[str, str]], free: int | None
) -> list[dict[str, Any]]:
    """The work of every probe of a kind of device that has so many bytes free (None: enough), none
    of it done: for a plan."""
    return [probe.fields for probe in planned(torch.device(device), recipes, 0, free)[0]]
