"""Which probes there are for a device's ceilings, what each needs, and its operands: random, never
zeros.

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
import torch.nn.functional as F

from bench.core.specs.recipe import DTYPE_BYTES
from bench.core.specs.suite import Sampling
from bench.count.closed.dit import attention_flops
from bench.count.point import DTYPES
from bench.measure.attention.backends import sdpa_backend
from bench.measure.attention.correctness import Attended, compared, insist, tolerance
from bench.measure.recipes.apply import precision
from bench.measure.recipes.cudnn import benchmarked
from models import kernels

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

    key: str
    fields: dict[str, Any]
    """Of its Probe."""
    needed: int
    """Bytes of operands and result."""
    make: Callable[[], Callable[[], Any]]
    sampled: str = "well"
    """well; short: a rung of the ladder, which has many; few: long calls."""

    @property
    def label(self) -> str:
        size = "x".join(map(str, self.fields["shape"].values()))
        what = (self.fields[name] for name in ("kind", "dtype", "backend"))
        return " ".join(filter(None, [*what, size]))

    def plan(self, plan: Sampling) -> Sampling:
        """How it is sampled, by that of the suite."""
        if self.sampled == "well":
            return plan
        smallest, largest, seconds = {"short": (7, 15, 0.1), "few": (3, 5, 1.0)}[self.sampled]
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


def _gemm_probe(
    shape: tuple[int, int, int], dtype: str, device: torch.device, seed: int
) -> Planned:
    m, n, k = shape
    needed = DTYPE_BYTES[dtype] * (m * k + n * k + m * n)
    return _planned(
        "gemm",
        dtype,
        None,
        {"m": m, "n": n, "k": k},
        needed,
        lambda: _gemm(m, n, k, device, dtype, seed),
        flops=2 * m * n * k,
    )


def _conv_probe(
    kind: str, shape: tuple[int, int, int, int], dtype: str, device: torch.device, seed: int
) -> Planned:
    c, t, h, w = shape
    needed = DTYPE_BYTES[dtype] * (2 * c * t * h * w + 27 * c * c)
    named = {"channels": c, "frames": t, "height": h, "width": w}

    def make() -> Callable[[], Any]:
        call = _conv3d(c, t, h, w, device, dtype, seed, kind != "small_conv3d")
        return partial(benchmarked, call) if kind == "conv3d_benchmark" else call

    return _planned(kind, dtype, None, named, needed, make, flops=2 * 27 * c * c * t * h * w)


def _attention_probe(
    shape: tuple[int, int, int, int],
    dtype: str,
    backend: str,
    device: torch.device,
    seed: int,
    sampled: str,
) -> Planned:
    b, a, n, e = shape
    scores = 2 * b * a * n * n if backend == "math" else 0  # and their softmax
    needed = DTYPE_BYTES[dtype] * (4 * b * a * n * e + scores)
    named = {"batch": b, "heads": a, "tokens": n, "head_dim": e}
    return _planned(
        "attention",
        dtype,
        backend,
        named,
        needed,
        lambda: _attention(b, a, n, e, device, dtype, backend, seed),
        flops=attention_flops(b, a, n, n, e),
        sampled=sampled,
    )


def _moving(
    device: torch.device, recipes: list[tuple[str, str]], seed: int, room: float | None
) -> Iterator[Planned]:
    sizes = SIZES[device.type]
    for dtype in dict.fromkeys(dtype for dtype, _ in recipes):
        for size in sizes.activation_bytes:
            n = size // DTYPE_BYTES[dtype]
            yield _planned(
                "activation",
                dtype,
                None,
                {"bytes": size},
                2 * size,
                lambda n=n, d=dtype: _activation(n, device, d, seed),
                moved=2 * size,
                sampled="short",
            )
    fresh = sizes.fresh_bytes
    yield _planned(
        "fresh_write",
        "fp32",
        None,
        {"bytes": fresh},
        fresh,
        lambda: lambda: torch.empty(fresh // 4, device=device).fill_(1.5),
        moved=fresh,
        sampled="short",
    )
    halves = [dtype for dtype, _ in recipes if dtype in ("bf16", "fp16")]
    largest = largest_array(device, room)
    arrays = Arrays(largest, device, seed)
    for dtype in dict.fromkeys(["fp32", *halves]):
        for size in (rung for rung in sizes.memory_bytes if rung <= largest):
            for kind, passes in (("copy", 2), ("triad", 3), ("read", 1), ("write", 1)):
                # Only the copy of the largest array is a ceiling; the rest is a curve.
                ceiling = (kind, dtype, size) == ("copy", "fp32", largest)
                n = size // DTYPE_BYTES[dtype]
                yield _planned(
                    kind,
                    dtype,
                    None,
                    {"bytes": size},
                    3 * size,
                    lambda kind=kind, n=n, d=dtype: _memory(kind, n, arrays.of(d)),
                    moved=passes * size,
                    sampled="well" if ceiling else "short",
                )


def _planned(
    kind: str,
    dtype: str,
    backend: str | None,
    shape: dict[str, int],
    needed: int,
    make: Callable[[], Callable[[], Any]],
    *,
    flops: int | None = None,
    moved: int | None = None,
    sampled: str = "well",
) -> Planned:
    size = "x".join(map(str, shape.values()))
    key = "/".join(filter(None, [kind, dtype, backend, size]))
    fields = {
        "kind": kind,
        "dtype": dtype,
        "backend": backend,
        "shape": shape,
        "flops": flops,
        "bytes_moved": moved,
    }
    return Planned(key, fields, needed, make, sampled)


def _randn(*shape: int, device: torch.device, dtype: str, seed: int) -> torch.Tensor:
    return torch.randn(
        *shape,
        device=device,
        dtype=DTYPES[dtype],
        generator=torch.Generator(device).manual_seed(seed),
    )


def _gemm(m: int, n: int, k: int, device: torch.device, dtype: str, seed: int) -> Callable[[], Any]:
    a, b = (
        _randn(m, k, device=device, dtype=dtype, seed=seed),
        _randn(n, k, device=device, dtype=dtype, seed=seed + 1),
    )
    return lambda: kernels.linear(a, b)  # weights (n, k), as a linear layer holds them


def _attention(
    b: int, a: int, n: int, e: int, device: torch.device, dtype: str, backend: str, seed: int
) -> Callable[[], Any]:
    """Raises WrongNumbers where the backend is off a float64 reference: no rate is then worth
    anything."""
    q, k, v = (_randn(b, a, n, e, device=device, dtype=dtype, seed=seed + i) for i in range(3))

    def call() -> Any:
        with sdpa_backend(backend):
            return kernels.attention(q, k, v)

    with precision(dtype):
        read = compared(Attended(q, k, v, call()), tolerance(dtype, backend))
    if read is not None:
        insist(read)
    return call


def _activation(n: int, device: torch.device, dtype: str, seed: int) -> Callable[[], Any]:
    x = _randn(n, device=device, dtype=dtype, seed=seed)
    return lambda: F.gelu(x, approximate="tanh")


def _conv3d(
    c: int, t: int, h: int, w: int, device: torch.device, dtype: str, seed: int, own: bool
) -> Callable[[], Any]:
    """own: as own VAEs run it, channels last; else as PyTorch does by itself."""
    x, weight = (
        _randn(*shape, device=device, dtype=dtype, seed=seed + i)
        for i, shape in enumerate(((1, c, t, h, w), (c, c, 3, 3, 3)))
    )
    if not own:
        return lambda: F.conv3d(x, weight, padding=1)
    x, weight = (a.contiguous(memory_format=torch.channels_last_3d) for a in (x, weight))
    return lambda: kernels.conv3d(x, weight, None, (1, 1, 1), (1, 1, 1))


class Arrays:
    """Three arrays of so many bytes, of one dtype at a time, made when first asked for; smaller
    probes take their beginnings."""

    def __init__(self, size: int, device: torch.device, seed: int):
        self._size, self._device, self._seed = size, device, seed
        self._made: tuple[str, list[torch.Tensor]] = "", []

    def of(self, dtype: str) -> list[torch.Tensor]:
        """Random, never zeros."""
        if self._made[0] != dtype:
            self._made = "", []  # the others are let go first
            length = min(self._size, 2**22) // DTYPE_BYTES[dtype]
            block = _randn(length, device=self._device, dtype=dtype, seed=self._seed)
            copies = self._size // (block.numel() * DTYPE_BYTES[dtype])
            self._made = dtype, [block.repeat(copies) for _ in range(3)]
        return self._made[1]


def _memory(kind: str, n: int, arrays: list[torch.Tensor]) -> Callable[[], Any]:
    a, b, c = (array[:n] for array in arrays)
    return {
        "copy": lambda: a.copy_(b),
        "triad": lambda: torch.add(b, c, alpha=3.0, out=a),  # STREAM's triad: a = b + s c
        "read": lambda: torch.sum(b),
        "write": lambda: a.fill_(1.5),  # of 0 a library may make a memset
    }[kind]
