"""Which probes there are for a device's ceilings, and what each needs.

Memory is read (a sum), written (a fill), copied, and streamed (STREAM's triad) from arrays that fit
the smallest cache to ones far over the largest: rate against size shows the knees.  GELU stands for
what is neither product nor copy.  The products are those of `models.kernels`, as own models run
them, so that no model can pass its ceiling.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from bench.core.specs.recipe import DTYPE_BYTES
from bench.core.specs.suite import Sampling
from bench.count.closed.dit import attention_flops
from bench.measure.probes import operands
from bench.measure.recipes.cudnn import benchmarked

MOST_OF_FREE_MEMORY = 0.5
"""That operands and result may take; a library's workspace and other processes need the rest."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of the probes of one kind of device, small to large."""

    gemm: tuple[tuple[int, int, int], ...]
    """m, n, k."""
    attention: tuple[tuple[int, int, int, int], ...]
    """batch, heads, tokens, head_dim."""
    long_attention: tuple[tuple[int, int, int, int], ...]
    """The same, by few samples, where memory and time allow; in formats of 16 bits."""
    conv3d: tuple[tuple[int, int, int, int], ...]
    """channels in and out, frames, height, width; 3 x 3 x 3."""
    small_conv3d: tuple[tuple[int, int, int, int], ...]
    """The same, by the im2col kernel that PyTorch takes for few channels on a CPU; public VAEs run
    it."""
    memory_bytes: tuple[int, ...]
    """Of one array; the largest is far over any cache.  Three lie in memory at a time."""
    activation_bytes: tuple[int, ...]
    fresh_bytes: int
    """Larger than what a CPU's allocator keeps for later."""


SIZES = {
    "cpu": Sizes(
        gemm=((256, 256, 256), (576, 768, 256), (1024, 1024, 1024), (2048, 2048, 2048)),
        attention=((1, 4, 576, 64), (1, 4, 2048, 64)),
        long_attention=(),
        conv3d=((32, 5, 64, 64), (64, 9, 64, 64), (128, 9, 32, 32)),
        small_conv3d=((32, 5, 64, 64),),
        memory_bytes=tuple(2**n for n in (18, 21, 24, 26, 28)),
        activation_bytes=(2**21, 2**23),
        fresh_bytes=2**26,
    ),
    "cuda": Sizes(
        gemm=(
            (2048, 2048, 2048),
            (4096, 4096, 4096),
            (8192, 8192, 8192),
            (16384, 16384, 16384),
            (32768, 15360, 5120),
            (32768, 20480, 5120),
        ),  # the last two: QKV and MLP of a 5,120-wide DiT
        attention=((1, 40, 4096, 128), (1, 40, 16384, 128), (1, 40, 32768, 128)),
        long_attention=((1, 40, 184320, 128),),  # Sora's minute: 70 TFLOP, 7.5 GB
        conv3d=((128, 9, 256, 256), (256, 9, 256, 256), (512, 9, 128, 128)),
        small_conv3d=(),
        memory_bytes=tuple(2**n for n in range(18, 33)),
        activation_bytes=(2**26, 2**30),
        fresh_bytes=2**28,
    ),
}


@dataclass(frozen=True)
class Planned:
    """A probe to come.  Its operands are made only when its turn comes."""

    fields: dict[str, Any]
    """Of its Probe."""
    needed: int
    """Bytes of operands and result."""
    make: Callable[[], Callable[[], Any]]
    sampled: str = "well"
    """well; short: a rung of the ladder, which has many; message: of a collective, which other
    processes disturb; few: long calls."""

    @property
    def key(self) -> str:
        """Names its samples."""
        return "/".join(self._words)

    @property
    def label(self) -> str:
        return " ".join(self._words)

    @property
    def _words(self) -> list[str]:
        size = "x".join(map(str, self.fields["shape"].values()))
        what = (self.fields[name] for name in ("kind", "dtype", "backend"))
        return list(filter(None, [*what, size]))

    def plan(self, plan: Sampling) -> Sampling:
        """How it is sampled, by that of the suite."""
        if self.sampled == "well":
            return plan
        smallest, largest, seconds = {
            "short": (7, 15, 0.1),
            "message": (9, 60, 0.3),
            "few": (3, 5, 1.0),
        }[self.sampled]
        return plan.model_copy(
            update={
                "min_samples": min(plan.min_samples, smallest),
                "max_samples": min(plan.max_samples, largest),
                "max_s": min(plan.max_s, seconds),
            }
        )


def planned(
    device: torch.device, recipes: list[tuple[str, str]], seed: int, free: int | None
) -> tuple[list[Planned], list[str]]:
    """What is to be measured for each (dtype, SDPA backend), in order, and in words what `free`
    bytes (None: enough) do not hold."""
    room = None if free is None else MOST_OF_FREE_MEMORY * free
    every = [*_computing(device, recipes, seed), *_moving(device, recipes, seed, room)]
    if free is None or room is None:
        return every, []
    there = f"half of the {free / 1e9:.3g} GB that are free"
    left_out = [
        f"{p.label}: its {p.needed / 1e9:.3g} GB are over {there}" for p in every if p.needed > room
    ]
    largest = largest_array(device, room)
    if largest < max(SIZES[device.type].memory_bytes):
        left_out.append(f"arrays over {largest} bytes: three of them are over {there}")
    return [p for p in every if p.needed <= room], left_out


def largest_array(device: torch.device, room: float | None) -> int:
    """Bytes of the largest rung of the memory ladder, three arrays of which fit; the smallest where
    none does."""
    rungs = SIZES[device.type].memory_bytes
    fit = [size for size in rungs if room is None or 3 * size <= room]
    return max(fit, default=min(rungs))


def _computing(
    device: torch.device, recipes: list[tuple[str, str]], seed: int
) -> Iterator[Planned]:
    for dtype in dict.fromkeys(dtype for dtype, _ in recipes):
        for shape in SIZES[device.type].gemm:
            yield _gemm_probe(shape, dtype, device, seed)
        for kind in ("conv3d", "small_conv3d"):
            for shape in getattr(SIZES[device.type], kind):
                yield _conv_probe(kind, shape, dtype, device, seed)
        if device.type == "cuda":
            yield _conv_probe("conv3d_benchmark", SIZES["cuda"].conv3d[-1], dtype, device, seed)
    for dtype, backend in dict.fromkeys(recipes):
        for shape in SIZES[device.type].attention:
            yield _attention_probe(shape, dtype, backend, device, seed, "well")
        for shape in SIZES[device.type].long_attention if DTYPE_BYTES[dtype] == 2 else ():
            yield _attention_probe(shape, dtype, backend, device, seed, "few")


def _fields(
    kind: str,
    dtype: str,
    shape: dict[str, int],
    *,
    backend: str | None = None,
    flops: int | None = None,
    moved: int | None = None,
) -> dict[str, Any]:
    """What a Probe says of itself before it is timed."""
    work = {"flops": flops, "bytes_moved": moved}
    return {"kind": kind, "dtype": dtype, "backend": backend, "shape": shape, **work}


def _gemm_probe(
    shape: tuple[int, int, int], dtype: str, device: torch.device, seed: int
) -> Planned:
    m, n, k = shape
    fields = _fields("gemm", dtype, {"m": m, "n": n, "k": k}, flops=2 * m * n * k)
    needed = DTYPE_BYTES[dtype] * (m * k + n * k + m * n)
    return Planned(fields, needed, lambda: operands.gemm(m, n, k, device, dtype, seed))


def _conv_probe(
    kind: str, shape: tuple[int, int, int, int], dtype: str, device: torch.device, seed: int
) -> Planned:
    c, t, h, w = shape
    named = {"channels": c, "frames": t, "height": h, "width": w}
    fields = _fields(kind, dtype, named, flops=2 * 27 * c * c * t * h * w)
    needed = DTYPE_BYTES[dtype] * (2 * c * t * h * w + 27 * c * c)

    def make() -> Callable[[], Any]:
        call = operands.conv3d(shape, device, dtype, seed, own=kind != "small_conv3d")
        return partial(benchmarked, call) if kind == "conv3d_benchmark" else call

    return Planned(fields, needed, make)


def _attention_probe(
    shape: tuple[int, int, int, int],
    dtype: str,
    backend: str,
    device: torch.device,
    seed: int,
    sampled: str,
) -> Planned:
    b, a, n, e = shape
    named = {"batch": b, "heads": a, "tokens": n, "head_dim": e}
    flops = attention_flops(b, a, n, n, e)
    fields = _fields("attention", dtype, named, backend=backend, flops=flops)
    scores = 2 * b * a * n * n if backend == "math" else 0  # and their softmax
    needed = DTYPE_BYTES[dtype] * (4 * b * a * n * e + scores)

    def make() -> Callable[[], Any]:
        return operands.attention(shape, device, dtype, backend, seed)

    return Planned(fields, needed, make, sampled)


def _moving(
    device: torch.device, recipes: list[tuple[str, str]], seed: int, room: float | None
) -> Iterator[Planned]:
    sizes, short = SIZES[device.type], "short"
    for dtype in dict.fromkeys(dtype for dtype, _ in recipes):
        for size in sizes.activation_bytes:
            fields = _fields("activation", dtype, {"bytes": size}, moved=2 * size)
            make = partial(operands.activation, size // DTYPE_BYTES[dtype], device, dtype, seed)
            yield Planned(fields, 2 * size, make, short)
    fresh = sizes.fresh_bytes
    fields = _fields("fresh_write", "fp32", {"bytes": fresh}, moved=fresh)
    yield Planned(fields, fresh, partial(operands.fresh_write, fresh // 4, device), short)
    halves = [dtype for dtype, _ in recipes if dtype in ("bf16", "fp16")]
    largest = largest_array(device, room)
    arrays = operands.Arrays(largest, device, seed)
    for dtype in dict.fromkeys(["fp32", *halves]):
        for size in (rung for rung in sizes.memory_bytes if rung <= largest):
            for kind, passes in (("copy", 2), ("triad", 3), ("read", 1), ("write", 1)):
                # Only the copy of the largest array is a ceiling; the rest is a curve.
                ceiling = (kind, dtype, size) == ("copy", "fp32", largest)
                fields = _fields(kind, dtype, {"bytes": size}, moved=passes * size)
                make = partial(operands.memory, kind, size // DTYPE_BYTES[dtype], arrays, dtype)
                yield Planned(fields, 3 * size, make, "well" if ceiling else short)
