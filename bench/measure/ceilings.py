"""What this device reaches: matrix products, attention, 3D convolution, and memory across sizes.  Random operands, never
zeros.

Memory is read (a sum), written (a fill), copied, and streamed (STREAM's triad) from arrays that fit the smallest cache
to ones far over the largest: rate against size shows the knees.  GELU stands for what is neither product nor copy.
The products are those of `models.kernels`, as own models run them, so that no model can pass its ceiling."""

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from bench.core.records import Probe, StageTelemetry, Timing
from bench.core.spec import DTYPE_BYTES, Sampling
from bench.count.closed_form import attention_flops
from bench.count.count import DTYPES
from bench.measure.clock import Clock
from bench.measure.correctness import Attended, compared, insist, tolerance
from bench.measure.execution import precision
from bench.measure.point import room
from bench.measure.sampling import sample
from bench.measure.sdpa import sdpa_backend
from bench.measure.telemetry import Monitor, monitor
from models import kernels

MOST_OF_FREE_MEMORY = 0.5    # that operands and result may take; a library's workspace and other processes need the rest
LONGEST_CALL_S = 1.0         # of the long attention: an H100 takes 0.12 to 0.2 s, and five calls are made


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
    """The same, by the im2col kernel that PyTorch takes for few channels on a CPU; public VAEs run it."""
    memory_bytes: tuple[int, ...]
    """Of one array; the largest is far over any cache.  Three lie in memory at a time."""
    activation_bytes: tuple[int, ...]
    fresh_bytes: int
    """Larger than what a CPU's allocator keeps for later."""


SIZES = {
    "cpu": Sizes(
        gemm=((256, 256, 256), (576, 768, 256), (1024, 1024, 1024), (2048, 2048, 2048)),
        attention=((1, 4, 576, 64), (1, 4, 2048, 64)), long_attention=(),
        conv3d=((32, 5, 64, 64), (64, 9, 64, 64), (128, 9, 32, 32)), small_conv3d=((32, 5, 64, 64),),
        memory_bytes=tuple(2**n for n in (18, 21, 24, 26, 28)), activation_bytes=(2**21, 2**23), fresh_bytes=2**26,
    ),
    "cuda": Sizes(
        gemm=((2048, 2048, 2048), (4096, 4096, 4096), (8192, 8192, 8192), (16384, 16384, 16384),
              (32768, 15360, 5120), (32768, 20480, 5120)),      # the last two: QKV and MLP of a 5,120-wide DiT
        attention=((1, 40, 4096, 128), (1, 40, 16384, 128), (1, 40, 32768, 128)),
        long_attention=((1, 40, 184320, 128),),                   # Sora's minute: 70 TFLOP, 7.5 GB
        conv3d=((128, 9, 256, 256), (256, 9, 256, 256), (512, 9, 128, 128)),
        small_conv3d=(), memory_bytes=tuple(2**n for n in range(18, 33)), activation_bytes=(2**26, 2**30), fresh_bytes=2**28,
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
        return " ".join(filter(None, [self.fields["kind"], self.fields["dtype"], self.fields["backend"],
                                      "x".join(map(str, self.fields["shape"].values()))]))

    def plan(self, plan: Sampling) -> Sampling:
        """How it is sampled, by that of the suite."""
        most = {"well": (plan.min_samples, plan.max_samples, plan.max_s), "short": (7, 15, 0.1), "few": (3, 5, 1.0)}
        smallest, largest, seconds = most[self.sampled]
        return plan.model_copy(update={"min_samples": min(plan.min_samples, smallest),
                                       "max_samples": min(plan.max_samples, largest), "max_s": min(plan.max_s, seconds)})


def measure_ceilings(
    device: torch.device, clock: Clock, plan: Sampling, recipes: list[tuple[str, str]], *,
    prior: dict[str, list[float]], on_round: Callable[[str, list[float]], None], seed: int = 0,
) -> tuple[list[Probe], dict[str, StageTelemetry], list[str]]:
    """Run every probe for each (dtype, SDPA backend) -> the probes, telemetry by their kind, and why others are missing.

    `prior` and `on_round` are keyed by probe, as in sampling.  A probe that fails costs itself alone; one that breaks the
    CUDA context costs those after it too.  Raises what the first one raised where none could be measured."""
    probes: list[Probe] = []
    first_error: Exception | None = None
    chosen, left_out = _that_fit(_probes(device, recipes, seed, room(device)))
    with monitor(device) as watch, torch.inference_mode():
        for planned in chosen:
            if why := _too_long(planned, probes):
                left_out.append(why)
                continue
            try:
                timing = _timed(planned, watch, clock, plan, prior.get(planned.key), on_round)
                probes.append(Probe(**planned.fields, timing=timing))
                continue
            except Exception as error:       # a kernel, a library or the allocator: in many ways, and each costs its own probe
                first_error = first_error or error.with_traceback(None)             # which would hold the operands
                left_out.append(f"{planned.label}: {(str(error).strip().splitlines() or [type(error).__name__])[0]}")
            gc.collect()
            if not context_is_whole(device):
                left_out.append("that broke the CUDA context: the probes after it were not measured")
                break
        if not probes and first_error is not None:
            raise first_error
        kinds = dict.fromkeys(probe.kind for probe in probes)
        return probes, {kind: watch.finish(kind, 0) for kind in kinds}, left_out


def _timed(planned: Planned, watch: Monitor, clock: Clock, plan: Sampling, prior: list[float] | None,
           on_round: Callable[[str, list[float]], None]) -> Timing:
    call = planned.make()
    with precision(planned.fields["dtype"]):
        return sample(lambda: watch.timed(planned.fields["kind"], lambda: clock.time(call)), planned.plan(plan), clock.now,
                      prior=prior, on_round=lambda samples: on_round(planned.key, samples))


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


def _too_long(planned: Planned, probes: list[Probe]) -> str | None:
    """Why a long probe is not tried: by the rate of the largest of its kind before it."""
    if planned.sampled != "few":
        return None
    same = ("kind", "dtype", "backend")
    before = [p for p in probes if all(getattr(p, name) == planned.fields[name] for name in same)]
    if not before:
        return f"{planned.label}: nothing smaller of its kind was measured"
    call_s = planned.fields["flops"] / before[-1].rate
    return f"{planned.label}: would take {call_s:.1f} s a call" if call_s > LONGEST_CALL_S else None


def planned_probes(device: str, recipes: list[tuple[str, str]], free: int | None) -> list[dict[str, Any]]:
    """The work of every probe of a kind of device that has so many bytes free (None: enough), none of it done: for a plan."""
    chosen, _ = _that_fit(_probes(torch.device(device), recipes, 0, free))
    return [planned.fields for planned in chosen]


def _that_fit(probes: Iterator[Planned | str]) -> tuple[list[Planned], list[str]]:
    probes = list(probes)
    return [p for p in probes if isinstance(p, Planned)], [p for p in probes if isinstance(p, str)]


def _probes(device: torch.device, recipes: list[tuple[str, str]], seed: int, free: int | None) -> Iterator[Planned | str]:
    """What is to be measured, in order, and in words what `free` bytes do not hold."""
    room_for = None if free is None else MOST_OF_FREE_MEMORY * free
    for planned in [*_computing(device, recipes, seed), *_moving(device, recipes, seed, room_for)]:
        if room_for is None or planned.needed <= room_for:
            yield planned
        else:
            yield f"{planned.label}: its {planned.needed / 1e9:.3g} GB are over half of the {free / 1e9:.3g} GB that are free"
    largest, most = largest_array(device, room_for), max(SIZES[device.type].memory_bytes)
    if largest < most:
        yield f"arrays over {largest} bytes: three of them take over half of the {(free or 0) / 1e9:.3g} GB that are free"


def largest_array(device: torch.device, room_for: float | None) -> int:
    """Bytes of the largest rung of the memory ladder, three arrays of which fit; the smallest where none does."""
    rungs = SIZES[device.type].memory_bytes
    return max((size for size in rungs if room_for is None or 3 * size <= room_for), default=min(rungs))


def _computing(device: torch.device, recipes: list[tuple[str, str]], seed: int) -> Iterator[Planned]:
    sizes = SIZES[device.type]
    for dtype in dict.fromkeys(dtype for dtype, _ in recipes):
        size = DTYPE_BYTES[dtype]
        for shape in sizes.gemm:
            m, n, k = shape
            yield _planned("gemm", dtype, None, dict(zip("mnk", shape, strict=True)), size * (m * k + n * k + m * n),
                           lambda m=m, n=n, k=k, d=dtype: _gemm(m, n, k, device, d, seed), flops=2 * m * n * k)
        for kind, shape in [*(("conv3d", s) for s in sizes.conv3d), *(("small_conv3d", s) for s in sizes.small_conv3d)]:
            c, t, h, w = shape
            yield _planned(kind, dtype, None, dict(zip(("channels", "frames", "height", "width"), shape, strict=True)),
                           size * (2 * c * t * h * w + 27 * c * c),
                           lambda c=c, t=t, h=h, w=w, d=dtype, own=kind == "conv3d": _conv3d(c, t, h, w, device, d, seed, own),
                           flops=2 * 27 * c * c * t * h * w)
    for dtype, backend in dict.fromkeys(recipes):
        size = DTYPE_BYTES[dtype]
        long = sizes.long_attention if size == 2 else ()
        for shape in (*sizes.attention, *long):
            b, a, n, e = shape
            scores = 2 * b * a * n * n if backend == "math" else 0                    # and their softmax
            yield _planned("attention", dtype, backend, dict(zip(("batch", "heads", "tokens", "head_dim"), shape, strict=True)),
                           size * (4 * b * a * n * e + scores),
                           lambda b=b, a=a, n=n, e=e, d=dtype, s=backend: _attention(b, a, n, e, device, d, s, seed),
                           flops=attention_flops(b, a, n, n, e), sampled="few" if shape in long else "well")


def _moving(device: torch.device, recipes: list[tuple[str, str]], seed: int, room_for: float | None) -> Iterator[Planned]:
    sizes = SIZES[device.type]
    for dtype in dict.fromkeys(dtype for dtype, _ in recipes):
        for size in sizes.activation_bytes:
            yield _planned("activation", dtype, None, {"bytes": size}, 2 * size,
                           lambda n=size // DTYPE_BYTES[dtype], d=dtype: _activation(n, device, d, seed), moved=2 * size,
                           sampled="short")
    fresh = sizes.fresh_bytes
    yield _planned("fresh_write", "fp32", None, {"bytes": fresh}, fresh,
                   lambda: lambda: torch.empty(fresh // DTYPE_BYTES["fp32"], device=device).fill_(1.5), moved=fresh,
                   sampled="short")
    largest = largest_array(device, room_for)
    halves = [dtype for dtype, _ in recipes if dtype in ("bf16", "fp16")]
    arrays = Arrays(largest, device, seed)
    for dtype in dict.fromkeys(["fp32", *halves]):
        for size in (rung for rung in sizes.memory_bytes if rung <= largest):
            for kind, passes in (("copy", 2), ("triad", 3), ("read", 1), ("write", 1)):
                # Only the copy of the largest array is a ceiling; the rest of the ladder is a curve.
                ceiling = (kind, dtype, size) == ("copy", "fp32", largest)
                yield _planned(kind, dtype, None, {"bytes": size}, 3 * size,
                               lambda kind=kind, n=size // DTYPE_BYTES[dtype], d=dtype: _memory(kind, n, arrays.of(d)),
                               moved=passes * size, sampled="well" if ceiling else "short")


def _planned(kind: str, dtype: str, backend: str | None, shape: dict[str, int], needed: int,
             make: Callable[[], Callable[[], Any]], *, flops: int | None = None, moved: int | None = None,
             sampled: str = "well") -> Planned:
    key = "/".join([kind, dtype, *([backend] if backend else []), "x".join(map(str, shape.values()))])
    return Planned(key, {"kind": kind, "dtype": dtype, "backend": backend, "shape": shape, "flops": flops,
                         "bytes_moved": moved}, needed, make, sampled)


def _randn(*shape: int, device: torch.device, dtype: str, seed: int) -> torch.Tensor:
    return torch.randn(*shape, device=device, dtype=DTYPES[dtype],
                       generator=torch.Generator(device).manual_seed(seed))


def _gemm(m: int, n: int, k: int, device: torch.device, dtype: str, seed: int) -> Callable[[], Any]:
    a, b = _randn(m, k, device=device, dtype=dtype, seed=seed), _randn(n, k, device=device, dtype=dtype, seed=seed + 1)
    return lambda: kernels.linear(a, b)        # weights (n, k), as a linear layer holds them


def _attention(b: int, a: int, n: int, e: int, device: torch.device, dtype: str, backend: str,
               seed: int) -> Callable[[], Any]:
    """Raises WrongNumbers where the backend gives others than a float64 reference: no rate is then worth anything."""
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


def _conv3d(c: int, t: int, h: int, w: int, device: torch.device, dtype: str, seed: int, own: bool) -> Callable[[], Any]:
    """own: as own VAEs run it, channels last; else as PyTorch does by itself."""
    x, weight = (_randn(*shape, device=device, dtype=dtype, seed=seed + i)
                 for i, shape in enumerate(((1, c, t, h, w), (c, c, 3, 3, 3))))
    if not own:
        return lambda: F.conv3d(x, weight, padding=1)
    x, weight = (a.contiguous(memory_format=torch.channels_last_3d) for a in (x, weight))
    return lambda: kernels.conv3d(x, weight, None, (1, 1, 1), (1, 1, 1))


class Arrays:
    """Three arrays of so many bytes, of one dtype at a time, made when first asked for; smaller probes take their
    beginnings."""

    def __init__(self, size: int, device: torch.device, seed: int):
        self._size, self._device, self._seed = size, device, seed
        self._made: tuple[str, list[torch.Tensor]] = "", []

    def of(self, dtype: str) -> list[torch.Tensor]:
        """Random, never zeros."""
        if self._made[0] != dtype:
            self._made = "", []                              # the others are let go first
            block = _randn(min(self._size, 2**22) // DTYPE_BYTES[dtype], device=self._device, dtype=dtype, seed=self._seed)
            copies = self._size // (block.numel() * DTYPE_BYTES[dtype])
            self._made = dtype, [block.repeat(copies) for _ in range(3)]
        return self._made[1]


def _memory(kind: str, n: int, arrays: list[torch.Tensor]) -> Callable[[], Any]:
    a, b, c = (array[:n] for array in arrays)
    return {
        "copy": lambda: a.copy_(b),
        "triad": lambda: torch.add(b, c, alpha=3.0, out=a),      # STREAM's triad: a = b + s c
        "read": lambda: torch.sum(b),
        "write": lambda: a.fill_(1.5),                           # of 0 a library may make a memset
    }[kind]
