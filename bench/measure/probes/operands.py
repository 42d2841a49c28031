"""Operands of the probes, random and never zeros, and the calls on them."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from bench.core.specs.recipe import DTYPE_BYTES
from bench.count.point import DTYPES
from bench.measure.attention.backends import sdpa_backend
from bench.measure.attention.correctness import Attended, compared, insist, tolerance
from bench.measure.recipes.apply import precision
from models import kernels


def _randn(*shape: int, device: torch.device, dtype: str, seed: int) -> torch.Tensor:
    return torch.randn(
        *shape,
        device=device,
        dtype=DTYPES[dtype],
        generator=torch.Generator(device).manual_seed(seed),
    )


def gemm(m: int, n: int, k: int, device: torch.device, dtype: str, seed: int) -> Callable[[], Any]:
    """(m, k) times (k, n)."""
    a, b = (
        _randn(m, k, device=device, dtype=dtype, seed=seed),
        _randn(n, k, device=device, dtype=dtype, seed=seed + 1),
    )
    return lambda: kernels.linear(a, b)  # weights (n, k), as a linear layer holds them


def attention(
    shape: tuple[int, int, int, int], device: torch.device, dtype: str, backend: str, seed: int
) -> Callable[[], Any]:
    """Attention by a backend.  shape: batch, heads, tokens, head_dim.

    Raises WrongNumbers where the backend is off a float64 reference: no rate is then worth
    anything."""
    q, k, v = (_randn(*shape, device=device, dtype=dtype, seed=seed + i) for i in range(3))

    def call() -> Any:
        with sdpa_backend(backend):
            return kernels.attention(q, k, v)

    with precision(dtype):
        read = compared(Attended(q, k, v, call()), tolerance(dtype, backend))
    if read is not None:
        insist(read)
    return call


def activation(n: int, device: torch.device, dtype: str, seed: int) -> Callable[[], Any]:
    """GELU of n numbers."""
    x = _randn(n, device=device, dtype=dtype, seed=seed)
    return lambda: F.gelu(x, approximate="tanh")


def conv3d(
    shape: tuple[int, int, int, int], device: torch.device, dtype: str, seed: int, *, own: bool
) -> Callable[[], Any]:
    """A convolution of 3 x 3 x 3.  shape: channels, frames, height, width; own: as own VAEs run it,
    channels last, else as PyTorch does by itself."""
    c, t, h, w = shape
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


def fresh_write(n: int, device: torch.device) -> Callable[[], Any]:
    """An array of n float32 numbers, allocated anew and written."""
    return lambda: torch.empty(n, device=device).fill_(1.5)


def memory(kind: str, n: int, arrays: Arrays, dtype: str) -> Callable[[], Any]:
    """One pass over n elements of three arrays."""
    a, b, c = (array[:n] for array in arrays.of(dtype))
    return {
        "copy": lambda: a.copy_(b),
        "triad": lambda: torch.add(b, c, alpha=3.0, out=a),  # STREAM's triad: a = b + s c
        "read": lambda: torch.sum(b),
        "write": lambda: a.fill_(1.5),  # of 0 a library may make a memset
    }[kind]
