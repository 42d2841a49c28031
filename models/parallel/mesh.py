"""The ranks of a mesh, axis by axis, and what they say to one another.

Every collective is functional (torch.distributed._functional_collectives): compilers, the fake
process group and dispatch modes all see it.
"""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as funcol
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from models.parallel.spec import AXES, Parallel

# all_gather_tensor before PyTorch 2.13
_all_gather = getattr(funcol, "all_gather_single", None) or funcol.all_gather_tensor

_reduce_scatter = getattr(funcol, "reduce_scatter_single", None) or funcol.reduce_scatter_tensor


@dataclass(frozen=True, eq=False)
class Ranks:
    """Those that share one axis with this rank."""

    group: Any
    """A torch.distributed.ProcessGroup."""
    size: int
    index: int
    """Of this rank among them."""

    def exchange(self, x: Tensor) -> Tensor:
        """All-to-all: row i goes to rank i.  (size, ...) -> (size, ...), row i from rank i."""
        rows = [1] * self.size
        with _timed(x):
            return _wait(funcol.all_to_all_single(x.contiguous(), rows, rows, self.group))

    def gather(self, x: Tensor) -> Tensor:
        """x of every rank.  (...) -> (size, ...)."""
        with _timed(x):
            return _wait(_all_gather(x.contiguous()[None], 0, self.group))

    def sum(self, x: Tensor) -> Tensor:
        """All-reduce.  (...) -> (...)."""
        with _timed(x):
            return _wait(funcol.all_reduce(x, "sum", self.group))

    def scatter_sum(self, x: Tensor) -> Tensor:
        """Reduce-scatter.  (size * n, ...) -> (n, ...), this rank's part of the sum."""
        with _timed(x):
            return _wait(_reduce_scatter(x.contiguous(), "sum", 0, self.group))

    def pass_on(self, x: Tensor) -> Tensor:
        """To the next rank; what the one before sent comes back, in the same shape."""
        to_next = [(i + 1) % self.size for i in range(self.size)]
        with _timed(x):
            got = _wait(funcol.permute_tensor(x.flatten(), to_next, self.group))
        return got.view(x.shape)


@dataclass(frozen=True, eq=False)
class Mesh:
    """A mesh's axes, of more than one rank each."""

    parallel: Parallel
    devices: DeviceMesh
    """Dimensions: AXES."""
    axes: dict[str, Ranks]
    """Axis -> this rank's group along it; axes of degree 1 are absent."""
    vae: Ranks | None
    """Neighbours that share a decode."""

    def axis(self, name: str) -> Ranks | None:
        return self.axes.get(name)


def make_mesh(parallel: Parallel, device_type: str) -> Mesh:
    """The mesh over the default process group.  Collective: every rank calls it.

    Raises ValueError where the group has another size than the mesh."""
    found = dist.get_world_size()
    if found != parallel.ranks:
        raise ValueError(f"mesh {parallel.words()}: {parallel.ranks} ranks, the group has {found}")
    degrees = tuple(parallel.degrees.values())
    devices = init_device_mesh(device_type, degrees, mesh_dim_names=AXES)
    axes = {
        axis: Ranks(devices.get_group(axis), degree, devices.get_local_rank(axis))
        for axis, degree in parallel.degrees.items()
        if degree > 1
    }
    return Mesh(parallel, devices, axes, _of_the_decode(parallel, device_type))


def _of_the_decode(parallel: Parallel, device_type: str) -> Ranks | None:
    if parallel.vae == 1:
        return None
    cut = (parallel.ranks // parallel.vae, parallel.vae)
    devices = init_device_mesh(device_type, cut, mesh_dim_names=("clips", "vae"))
    return Ranks(devices.get_group("vae"), parallel.vae, devices.get_local_rank("vae"))


class Spans:
    """Seconds that this rank's stream (on a CPU its thread) spent in collectives."""

    def __init__(self) -> None:
        self._cpu_s = 0.0
        self._events: list[tuple[Any, Any]] = []

    @contextlib.contextmanager
    def span(self, x: Tensor) -> Iterator[None]:
        """Around one collective on x."""
        if x.is_cuda:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            yield
            end.record()
            self._events.append((begin, end))
        else:
            start = time.perf_counter()
            yield
            self._cpu_s += time.perf_counter() - start

    def seconds(self) -> float:
        """So far."""
        if self._events:
            torch.cuda.synchronize()
        on_card_ms = sum(begin.elapsed_time(end) for begin, end in self._events)
        return self._cpu_s + on_card_ms / 1e3


_spans: Spans | None = None  # within collectives_in


@contextlib.contextmanager
def collectives_in() -> Iterator[Spans]:
    """Time every collective of a Ranks.  What is compiled is not seen."""
    global _spans
    before, _spans = _spans, Spans()
    try:
        yield _spans
    finally:
        _spans = before


def _timed(x: Tensor) -> contextlib.AbstractContextManager[None]:
    if _spans is None or torch.compiler.is_compiling():
        return contextlib.nullcontext()
    return _spans.span(x)


def _wait(x: Tensor) -> Tensor:
    return x if torch.compiler.is_compiling() else funcol.wait_tensor(x)
