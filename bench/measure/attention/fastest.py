"""Which attention backend is fastest inside a denoiser: a kernel that wins alone may lose between a
model's other kernels, and at its strides.

A forward is run under each backend in turns, up to the end of its second largest attention call:
two attentions with a whole block between them, at the point's own shape.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from torch import Tensor

from bench.measure.attention.backends import sdpa_backend, unsupported_reason
from bench.measure.attention.watching import Enough, Sightings, watching
from bench.measure.device.machine import Machine
from bench.measure.timing.clock import Clock

CANDIDATES = {"cpu": ("auto", "flash", "math"), "cuda": ("cudnn", "flash", "flash3", "efficient")}
"""Those that compute in the recipe's dtype; SDPA's math writes out all scores, which no long clip
has memory for."""
SIGHTINGS = 2  # of the largest attention call, at whose end a race is over
ROUNDS, LONG_S = 3, 1.0  # one round where the longest takes over a second


@dataclass(frozen=True)
class Fastest:
    """The winner, and seconds of each."""

    backend: str
    seconds: dict[str, float] = field(default_factory=dict)
    reason: str | None = None


def fastest_attention(forward: Callable[[], Any], machine: Machine, clock: Clock) -> Fastest:
    """Race the backends that can run here.  Without any, or without attention, SDPA chooses
    ("auto")."""
    with torch.no_grad():  # not inference mode: what is made lazily may be trained later
        largest = _largest(forward)
        if largest is None:
            return Fastest("auto", reason="no attention call was seen to choose a backend by")
        runs, warm = {}, {}
        for name in CANDIDATES[machine.kind]:
            if unsupported_reason(name, machine):
                continue
            run = _until(forward, largest, name)
            with contextlib.suppress(torch.OutOfMemoryError):
                try:
                    warm[name] = clock.time(run)
                    runs[name] = run
                except RuntimeError as error:
                    if "No available kernel" not in str(error):  # of this head size or dtype
                        raise
        if not runs:
            return Fastest("auto", reason="no attention backend takes this head size and dtype")
        rounds = ROUNDS if max(warm.values()) < LONG_S else 1
        times: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(rounds):
            for name, run in runs.items():
                times[name].append(clock.time(run))
    seconds = {name: median(taken) for name, taken in times.items()}
    return Fastest(min(seconds, key=seconds.__getitem__), seconds)


def _largest(forward: Callable[[], Any]) -> tuple | None:
    """The shape of the forward's largest attention call, by running it until that came a third
    time."""
    sightings = Sightings()

    def see(
        attend: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor, *args: Any, **given: Any
    ) -> Tensor:
        shape = sightings.add(q, k)
        if shape == sightings.largest and sightings.counts[shape] > SIGHTINGS:
            raise Enough
        return attend(q, k, v, *args, **given)

    with watching(see), contextlib.suppress(Enough):
        forward()
    return sightings.largest if sightings.counts else None


def _until(forward: Callable[[], Any], largest: tuple, backend: str) -> Callable[[], None]:
    """The forward under a backend, up to the end of the last attention call that is wanted."""

    def run() -> None:
        sightings = Sightings()

        def see(
            attend: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor, *args: Any, **given: Any
        ) -> Tensor:
            shape = sightings.add(q, k)
            out = attend(q, k, v, *args, **given)
            if shape == largest and sightings.counts[shape] == SIGHTINGS:
                raise Enough
            return out

        with sdpa_backend(backend), watching(see), contextlib.suppress(Enough):
            forward()

    return run
