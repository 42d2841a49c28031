"""What this device reaches: matrix products, attention, 3D convolution, and memory across sizes.  Random operands, never
zeros.

Memory is read (a sum), written (a fill), copied, and streamed (STREAM's triad) from arrays that fit the smallest cache
to ones far over the largest: rate against size shows the knees.  GELU stands for what is neither product nor copy.
The products are those of `models.kernels`, as own models run them, so that no model can pass its ceiling."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from bench.core.records import Probe, StageTelemetry
from bench.core.spec import DTYPE_BYTES, Sampling
from bench.count.closed_form import attention_flops
from bench.count.count import DTYPES
from bench.measure.attention_ran import family_ran
from bench.measure.clock import Clock
from bench.measure.cudnn import benchmarked
from bench.measure.execution import precision
from bench.measure.sampling import sample
from bench.measure.sdpa import sdpa_backend
from bench.measure.telemetry import monitor
from models import kernels


@dataclass(frozen=True)
class Sizes:
    """Sizes of the probes of one kind of device, small to large."""

    gemm: tuple[tuple[int, int, int], ...]
    """m, n, k."""
    attention: tuple[tuple[int, int, int, int], ...]
    """batch, heads, tokens, head_dim."""
    conv3d: tuple[tuple[int, int, int, int], ...]
    """channels in and out, frames, height, width; 3 x 3 x 3."""
    small_conv3d: tuple[tuple[int, int, int, int], ...]
    """The same, by the im2col kernel that PyTorch takes for few channels on a CPU; public VAEs run it."""
    memory_bytes: tuple[int, ...]
    """Of one array; the largest is far over any cache."""
    activation_bytes: tuple[int, ...]
    fresh_bytes: int
    """Larger than what a CPU's allocator keeps for later."""


SIZES = {
    "cpu": Sizes(
        gemm=((256, 256, 256), (576, 768, 256), (1024, 1024, 1024), (2048, 2048, 2048)),
        attention=((1, 4, 576, 64), (1, 4, 2048, 64)),
        conv3d=((32, 5, 64, 64), (64, 9, 64, 64), (128, 9, 32, 32)), small_conv3d=((32, 5, 64, 64),),
        memory_bytes=tuple(2**n for n in (18, 21, 24, 26, 28)), activation_bytes=(2**21, 2**23), fresh_bytes=2**26,
    ),
    "cuda": Sizes(
        gemm=((2048, 2048, 2048), (4096, 4096, 4096), (8192, 8192, 8192), (16384, 16384, 16384),
              (32768, 15360, 5120), (32768, 20480, 5120)),      # the last two: QKV and MLP of a 5,120-wide DiT
        attention=((1, 40, 4096, 128), (1, 40, 16384, 128), (1, 40, 32768, 128)),
        conv3d=((128, 9, 256, 256), (256, 9, 256, 256), (512, 9, 128, 128)),
        small_conv3d=(), memory_bytes=tuple(2**n for n in range(18, 33)), activation_bytes=(2**26, 2**30), fresh_bytes=2**28,
    ),
}


def measure_ceilings(
    device: torch.device, clock: Clock, plan: Sampling, recipes: list[tuple[str, str]], *,
    prior: dict[str, list[float]], on_round: Callable[[str, list[float]], None], seed: int = 0,
) -> tuple[list[Probe], dict[str, StageTelemetry]]:
    """Run every probe for each (dtype, SDPA backend) -> the probes, and telemetry by their kind.

    `prior` and `on_round` are keyed by probe, as in sampling."""
    probes: list[Probe] = []
    kinds: dict[str, None] = {}
    largest = max(SIZES[device.type].memory_bytes)
    with monitor(device) as watch, torch.inference_mode():
        for key, probe, make in _probes(device, recipes, seed):
            call, kind = make(), probe["kind"]
            kinds[kind] = None
            # Only the copy of the largest array is a ceiling; the rest of the ladder is a curve.
            curve = probe["flops"] is None and (kind, probe["dtype"], probe["shape"]["bytes"]) != ("copy", "fp32", largest)
            with precision(probe["dtype"]):
                timing = sample(lambda call=call, kind=kind: watch.timed(kind, lambda: clock.time(call)),
                                _short(plan) if curve else plan, clock.now, prior=prior.get(key),
                                on_round=lambda samples, key=key: on_round(key, samples))
                ran = family_ran(call, device) if kind == "attention" else None
            probes.append(Probe(**probe, backend_ran=ran, timing=timing))
            del call
        return probes, {kind: watch.finish(kind, 0) for kind in kinds}


def _short(plan: Sampling) -> Sampling:
    """For the ladder, which has many rungs."""
    return plan.model_copy(update={"min_samples": min(plan.min_samples, 7), "max_samples": min(plan.max_samples, 15),
                                   "max_s": min(plan.max_s, 0.1)})


def planned_probes(device: str, recipes: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """The work of every probe of a kind of device, none of it done: for a plan."""
    return [probe for _, probe, _ in _probes(torch.device(device), recipes, 0)]


def _probes(device: torch.device, recipes: list[tuple[str, str]], seed: int):
    """(key, Probe's fields, maker of the call).  Operands are made only when a probe's turn comes."""
    sizes = SIZES[device.type]
    for dtype in dict.fromkeys(dtype for dtype, _ in recipes):
        for shape in sizes.gemm:
            m, n, k = shape
            yield _probe("gemm", dtype, None, dict(zip("mnk", shape, strict=True)), 2 * m * n * k, None,
                         lambda m=m, n=n, k=k, d=dtype: _gemm(m, n, k, device, d, seed))
        for kind, shape in [*(("conv3d", s) for s in sizes.conv3d), *(("small_conv3d", s) for s in sizes.small_conv3d)]:
            c, t, h, w = shape
            yield _probe(kind, dtype, None, dict(zip(("channels", "frames", "height", "width"), shape, strict=True)),
                         2 * 27 * c * c * t * h * w, None,
                         lambda c=c, t=t, h=h, w=w, d=dtype, own=kind == "conv3d": _conv3d(c, t, h, w, device, d, seed, own))
        if device.type == "cuda":
            c, t, h, w = shape = sizes.conv3d[-1]
            yield _probe("conv3d_benchmark", dtype, None,
                         dict(zip(("channels", "frames", "height", "width"), shape, strict=True)),
                         2 * 27 * c * c * t * h * w, None,
                         lambda c=c, t=t, h=h, w=w, d=dtype: partial(
                             benchmarked, _conv3d(c, t, h, w, device, d, seed, own=True)))
    for dtype, backend in dict.fromkeys(recipes):
        for shape in sizes.attention:
            b, a, n, e = shape
            yield _probe("attention", dtype, backend,
                         dict(zip(("batch", "heads", "tokens", "head_dim"), shape, strict=True)),
                         attention_flops(b, a, n, n, e), None,
                         lambda b=b, a=a, n=n, e=e, d=dtype, s=backend: _attention(b, a, n, e, device, d, s, seed))
    for dtype in dict.fromkeys(dtype for dtype, _ in recipes):
        for size in sizes.activation_bytes:
            yield _probe("activation", dtype, None, {"bytes": size}, None, 2 * size,
                         lambda n=size // DTYPE_BYTES[dtype], d=dtype: _activation(n, device, d, seed))
    fresh = sizes.fresh_bytes
    yield _probe("fresh_write", "fp32", None, {"bytes": fresh}, None, fresh,
                 lambda: lambda: torch.empty(fresh // DTYPE_BYTES["fp32"], device=device).fill_(1.5))
    halves = [dtype for dtype, _ in recipes if dtype in ("bf16", "fp16")]
    for dtype in dict.fromkeys(["fp32", *halves]):
        arrays = _arrays(max(sizes.memory_bytes), device, dtype, seed)
        for size in sizes.memory_bytes:
            for kind, passes in (("copy", 2), ("triad", 3), ("read", 1), ("write", 1)):
                yield _probe(kind, dtype, None, {"bytes": size}, None, passes * size,
                             lambda kind=kind, n=size // DTYPE_BYTES[dtype], arrays=arrays: _memory(kind, n, arrays))


def _probe(kind: str, dtype: str, backend: str | None, shape: dict[str, int], flops: int | None,
           bytes_moved: int | None, make: Callable[[], Callable[[], Any]]):
    key = "/".join([kind, dtype, *([backend] if backend else []), "x".join(map(str, shape.values()))])
    return key, {"kind": kind, "dtype": dtype, "backend": backend, "shape": shape, "flops": flops,
                 "bytes_moved": bytes_moved}, make


def _randn(*shape: int, device: torch.device, dtype: str, seed: int) -> torch.Tensor:
    return torch.randn(*shape, device=device, dtype=DTYPES[dtype],
                       generator=torch.Generator(device).manual_seed(seed))


def _gemm(m: int, n: int, k: int, device: torch.device, dtype: str, seed: int) -> Callable[[], Any]:
    a, b = _randn(m, k, device=device, dtype=dtype, seed=seed), _randn(n, k, device=device, dtype=dtype, seed=seed + 1)
    return lambda: kernels.linear(a, b)        # weights (n, k), as a linear layer holds them


def _attention(b: int, a: int, n: int, e: int, device: torch.device, dtype: str, backend: str,
               seed: int) -> Callable[[], Any]:
    q, k, v = _randn(3, b, a, n, e, device=device, dtype=dtype, seed=seed).unbind(0)

    def call() -> Any:
        with sdpa_backend(backend):
            return kernels.attention(q, k, v)
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


def _arrays(size: int, device: torch.device, dtype: str, seed: int) -> Callable[[], list[torch.Tensor]]:
    """Three arrays of `size` bytes, made at the first call; smaller probes take their beginnings."""
    made: list[torch.Tensor] = []

    def arrays() -> list[torch.Tensor]:
        if not made:
            block = _randn(min(size, 2**22) // DTYPE_BYTES[dtype], device=device, dtype=dtype, seed=seed)
            made.extend(block.repeat(size // (block.numel() * DTYPE_BYTES[dtype])) for _ in range(3))
        return made
    return arrays


def _memory(kind: str, n: int, arrays: Callable[[], list[torch.Tensor]]) -> Callable[[], Any]:
    a, b, c = (array[:n] for array in arrays())
    return {
        "copy": lambda: a.copy_(b),
        "triad": lambda: torch.add(b, c, alpha=3.0, out=a),      # STREAM's triad: a = b + s c
        "read": lambda: torch.sum(b),
        "write": lambda: a.fill_(1.5),                           # of 0 a library may make a memset
    }[kind]
