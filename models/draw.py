"""Random numbers that do not depend on the dtype they end in: drawn in float32, then cast.

PyTorch draws other numbers in bfloat16 than in float32, so that two dtypes would be two models and
two inputs.  Drawn piece by piece, so that a 20 B model never needs a float32 copy of itself.  The
pieces follow from the shape alone: dtype and memory format change nothing.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

PIECE = 2**24  # elements drawn at a time: 64 MiB in float32


def normal_(out: Tensor, deviation: float, generator: torch.Generator | None) -> Tensor:
    """Fill `out`, of any shape, with normal numbers of mean 0."""
    return _fill(out, lambda piece: piece.normal_(0.0, deviation, generator=generator))


def normal(
    *shape: int, generator: torch.Generator | None, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Standard normal numbers, contiguous."""
    return _made(shape, device, dtype, lambda piece: piece.normal_(generator=generator))


def uniform_(out: Tensor, bound: float, generator: torch.Generator | None) -> Tensor:
    """Fill `out`, of any shape, with numbers in [-bound, bound)."""
    return _fill(out, lambda piece: piece.uniform_(-bound, bound, generator=generator))


def uniform(
    *shape: int, generator: torch.Generator | None, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Numbers in [-1, 1), contiguous."""
    return _made(shape, device, dtype, lambda piece: piece.uniform_(-1.0, 1.0, generator=generator))


Drawn = Callable[[Tensor], Tensor]
"""Fills a float32 tensor with random numbers and gives it back."""


def _made(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype, drawn: Drawn) -> Tensor:
    out = torch.empty(shape, device=device, dtype=dtype)
    if out.is_meta:
        return out
    if dtype is torch.float32 and out.numel() <= PIECE:
        return drawn(out)  # one piece, and no other dtype to bring it to
    return _fill(out, drawn)


def _fill(out: Tensor, drawn: Drawn) -> Tensor:
    if out.is_meta:  # nothing is allocated, and drawing nothing takes milliseconds a tensor
        return out
    for piece in _pieces(out):
        piece.copy_(drawn(torch.empty(piece.shape, device=out.device, dtype=torch.float32)))
    return out


def _pieces(x: Tensor) -> Iterator[Tensor]:
    """Views of at most PIECE elements each, in order: all of x, else rows of it together, else
    parts of each row."""
    if x.numel() <= PIECE:
        yield x
    elif x[0].numel() <= PIECE:
        yield from x.split(PIECE // x[0].numel())
    else:
        for row in x:
            yield from _pieces(row)
