"""A denoiser's forward as a CUDA graph: captured at the first call of a shape, replayed from then
on, so that no step waits for the host to launch its kernels.

Latents, time and condition are copied into the graph's own operands before each replay: all of a
step's forwards then share one graph and its memory, wherever a caller keeps them.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from bench.measure.timing.launch import Capture
from models.denoiser import Denoiser

_off = False


@contextlib.contextmanager
def ungraphed() -> Iterator[None]:
    """Within, graphed denoisers run operator by operator."""
    global _off
    before, _off = _off, True
    try:
        yield
    finally:
        _off = before


class Graphed:
    """forward(x, t, **condition) of a denoiser by CUDA graphs.

    What it gives lies in the graph's memory and is overwritten by the next replay;
    `models.diffusion.trajectory.predict` copies it where the denoiser says `graphs`."""

    def __init__(self, denoiser: nn.Module, forward: Callable[..., Tensor], capture: Capture):
        self._denoiser, self._forward, self._capture = denoiser, forward, capture
        self._graphs: dict[tuple, tuple[Callable[[], Any], dict[str, Tensor], list[Tensor]]] = {}

    def __call__(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        """Raises RuntimeError where the forward cannot be captured."""
        if _off or torch.is_grad_enabled():  # a backward needs what a graph overwrites
            return self._forward(x, t, **condition)
        given = {"x": x, "t": t, **condition}
        key = (
            getattr(self._denoiser, "expert", 0),
            *((name, value.shape, value.dtype) for name, value in given.items()),
        )
        if key not in self._graphs:
            self._graphs[key] = self._captured(given)
        replay, own, out = self._graphs[key]
        for name, value in given.items():
            own[name].copy_(value)
        replay()
        return out[0]

    def _captured(
        self, given: dict[str, Tensor]
    ) -> tuple[Callable[[], Any], dict[str, Tensor], list[Tensor]]:
        own = {name: value.clone() for name, value in given.items()}
        out: list[Tensor] = []

        def forward() -> None:
            out[:] = [self._forward(**own)]

        try:
            return self._capture(forward, given["x"].device), own, out
        except RuntimeError as error:
            line = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise RuntimeError(
                f"the forward could not be captured as a CUDA graph: {line}"
            ) from error


def graph_forward(denoiser: nn.Module, capture: Capture) -> None:
    """Let a denoiser's forward be replayed from CUDA graphs.  Raises ValueError for an
    auto-regressive one, whose calls read a cache that grows."""
    if not isinstance(denoiser, Denoiser):
        raise ValueError("cuda_graph: only a denoiser's forward is captured")
    denoiser.through = Graphed(denoiser, denoiser.compute, capture)
    denoiser.graphs = True
