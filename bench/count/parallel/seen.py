"""Collectives as a dispatch mode sees them: on gloo, NCCL, or torch's fake process group."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bench.count.parallel.sent import (
    ALL_GATHER,
    ALL_REDUCE,
    ALL_TO_ALL,
    POINT_TO_POINT,
    REDUCE_SCATTER,
    Message,
    sent_bytes,
)
from bench.count.rules import UncountedOperator
from models.parallel.mesh import Mesh

FUNCTIONAL = {
    "all_gather_into_tensor": ALL_GATHER,
    "all_reduce": ALL_REDUCE,
    "reduce_scatter_tensor": REDUCE_SCATTER,
}
GATHERS = ("allgather_", "_allgather_base_")
UNKNOWN = "bench/count/parallel/seen.py does not know it"
DTENSOR = "torch.distributed.tensor"
OTHER = "other"
"""Axis of a group that the mesh does not name, such as that of sharded weights."""


class CollectivesMode(TorchDispatchMode):
    """Notes every functional collective that runs within."""

    def __init__(self, mesh: Mesh):
        super().__init__()
        self.messages: list[Message] = []
        self._axes = {ranks.group.group_name: axis for axis, ranks in mesh.axes.items()}
        if mesh.vae is not None:
            self._axes.setdefault(mesh.vae.group.group_name, "vae")

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if any(t.__module__.startswith(DTENSOR) for t in types):
            return NotImplemented
        namespace, _, name = func.name().partition("::")
        if namespace == "_c10d_functional":
            self._note(name.partition(".")[0], args)
        elif namespace == "c10d":
            self._note_in_place(name.partition(".")[0], args)
        return func(*args, **(kwargs or {}))

    def _note(self, name: str, args: tuple) -> None:
        tensor, group_name = args[0], args[-1]
        if not isinstance(group_name, str):  # waiting for one
            return
        group = dist.distributed_c10d._resolve_process_group(group_name)
        if name == "all_to_all_single":
            axis = self._axes.get(group_name, OTHER)
            self.messages.append(_all_to_all(axis, group.size(), group.rank(), tensor, args[2]))
            return
        collective = FUNCTIONAL.get(name)
        if collective is None:
            raise UncountedOperator(f"collective {name}: {UNKNOWN}")
        self._add(collective, group, tensor)

    def _note_in_place(self, name: str, args: tuple) -> None:
        """Of torch.distributed's own functions, which fully_shard and diffusers call."""
        if name not in GATHERS:
            raise UncountedOperator(f"collective c10d::{name}: {UNKNOWN}")
        part = args[1][0] if isinstance(args[1], list) else args[1]
        self._add(ALL_GATHER, dist.ProcessGroup.unbox(args[2]), part)

    def _add(self, collective: str, group: Any, part: Tensor) -> None:
        held = part.numel() * part.element_size()
        axis, ranks = self._axes.get(group.group_name, OTHER), group.size()
        self.messages.append(Message(axis, collective, ranks, sent_bytes(collective, ranks, held)))


def _all_to_all(axis: str, ranks: int, own: int, tensor: Tensor, rows: list[int]) -> Message:
    """A permutation is an all-to-all that has rows for one other rank alone."""
    row = tensor.numel() // tensor.shape[0] * tensor.element_size()
    sent = sum(n for rank, n in enumerate(rows) if rank != own) * row
    to = sum(1 for rank, n in enumerate(rows) if n and rank != own)
    whole = all(rows) and to == ranks - 1
    return Message(axis, ALL_TO_ALL if whole else POINT_TO_POINT, ranks, sent)


@contextlib.contextmanager
def fake_ranks(ranks: int, rank: int = 0) -> Iterator[None]:
    """This process as one of many that are not there: collectives return at once."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=ranks)
    try:
        yield
    finally:
        dist.destroy_process_group()
