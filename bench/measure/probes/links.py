"""What ranks reach together: collectives by message size, and products and copies on all ranks at
once beside one rank alone.

Collectives are those of models.parallel.mesh, as models call them.  Where ranks share memory or
power, as CPU cores do, each is slower when all are at work; cards with memory of their own are not.
"""

import itertools
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from bench.core.specs.recipe import DTYPE_BYTES
from bench.core.specs.suite import Sampling
from bench.count.parallel.sent import (
    ALL_GATHER,
    ALL_REDUCE,
    ALL_TO_ALL,
    POINT_TO_POINT,
    REDUCE_SCATTER,
    sent_bytes,
)
from bench.count.point import DTYPES
from bench.measure.device.memory import room
from bench.measure.probes.kernels import MOST_OF_FREE_MEMORY, Planned, planned
from bench.measure.recipes.apply import precision
from bench.measure.timing.clock import Clock
from bench.measure.timing.sampling import sample
from bench.results.records import Probe
from models.parallel.mesh import Ranks

MESSAGE_BYTES = {
    "cpu": tuple(2**n for n in range(10, 25, 2)),
    "cuda": tuple(2**n for n in range(10, 31, 2)),
}
"""That each rank puts in."""
CALLS: dict[str, Callable[[Ranks, torch.Tensor], Any]] = {
    ALL_TO_ALL: lambda ranks, x: ranks.exchange(x.view(ranks.size, -1)),
    ALL_GATHER: lambda ranks, x: ranks.gather(x),
    REDUCE_SCATTER: lambda ranks, x: ranks.scatter_sum(x),
    ALL_REDUCE: lambda ranks, x: ranks.sum(x),
    POINT_TO_POINT: lambda ranks, x: ranks.pass_on(x),
}


def measure_links(
    device: torch.device,
    clock: Clock,
    plan: Sampling,
    recipes: list[tuple[str, str]],
    *,
    prior: dict[str, list[float]],
    on_round: Callable[[str, list[float]], None],
    seed: int = 0,
) -> tuple[list[Probe], list[str]]:
    """-> the probes, and why others are missing.  Collective: every rank of the default group calls
    it, with a clock that all of them share.  The arguments as of `measure_ceilings`."""
    world, free = dist.get_world_size(), _free_to_each(device)
    computing, left_out = planned(device, recipes, seed, free)
    probes = []
    with torch.inference_mode():
        for probe in [*_collectives(device, recipes[0][0], free), *_at_once(computing, world)]:
            try:
                call = probe.make()
                call()
            except RuntimeError as error:  # a collective that a backend lacks: on every rank alike
                left_out.append(f"{probe.label}: {str(error).strip().splitlines()[0]}")
                continue
            with precision(probe.fields["dtype"]):
                timing = sample(
                    partial(clock.time, call),
                    probe.plan(plan),
                    clock.now,
                    prior=prior.get(probe.key),
                    on_round=partial(on_round, probe.key),
                )
            probes.append(Probe(**probe.fields, timing=timing))
    return probes, left_out


def _free_to_each(device: torch.device) -> int | None:
    """Bytes, the least of all ranks: they must plan the same probes.  None: not known."""
    free, world = room(device), dist.get_world_size()
    every: list[int | None] = [None] * world
    dist.all_gather_object(every, free)
    known = [bytes_free for bytes_free in every if bytes_free is not None]
    if not known:
        return None
    return min(known) // (world if device.type == "cpu" else 1)


def _collectives(device: torch.device, dtype: str, free: int | None) -> Iterator[Planned]:
    """Of every group size that divides the ranks; groups of one size work at the same time, as they
    do in a mesh."""
    most = None if free is None else MOST_OF_FREE_MEMORY * free
    for ranks, across in _groups(device.type):
        for collective, size in itertools.product(CALLS, MESSAGE_BYTES[device.type]):
            unit = ranks.size * DTYPE_BYTES[dtype]
            put_in = -(-size // unit) * unit
            needed = (ranks.size + 2) * put_in
            if most is not None and needed > most:
                continue
            fields = {
                "kind": collective,
                "dtype": dtype,
                "backend": None,
                "shape": {"bytes": put_in, "ranks": ranks.size, "across": across},
                "flops": None,
                "bytes_moved": sent_bytes(collective, ranks.size, put_in),
            }
            yield Planned(
                fields, needed, partial(_call, collective, ranks, put_in, device, dtype), "message"
            )


def _groups(device_type: str) -> list[tuple[Ranks, int]]:
    """Neighbours, of each size that divides a node's ranks; all; over several nodes one rank of
    each.  -> with 1 where the group goes across nodes, else 0."""
    world = dist.get_world_size()
    per_node = int(os.environ["LOCAL_WORLD_SIZE"])
    sizes = [n for n in range(2, per_node + 1) if per_node % n == 0]
    if world > per_node:
        sizes.append(world)
    found = []
    for size in sizes:
        mesh = init_device_mesh(device_type, (world // size, size), mesh_dim_names=("rest", "own"))
        ranks = Ranks(mesh.get_group("own"), size, mesh.get_local_rank("own"))
        found.append((ranks, int(size > per_node)))
    nodes = world // per_node
    if nodes > 1 and nodes != world:
        mesh = init_device_mesh(device_type, (nodes, per_node), mesh_dim_names=("own", "rest"))
        found.append((Ranks(mesh.get_group("own"), nodes, mesh.get_local_rank("own")), 1))
    return found


def _call(
    collective: str, ranks: Ranks, put_in: int, device: torch.device, dtype: str
) -> Callable[[], Any]:
    numbers = put_in // DTYPE_BYTES[dtype]
    generator = torch.Generator(device).manual_seed(0)
    x = torch.randn(numbers, device=device, dtype=DTYPES[dtype], generator=generator)
    return partial(CALLS[collective], ranks, x)


def _at_once(computing: list[Planned], world: int) -> Iterator[Planned]:
    """The largest probe of each kind and every rung of the copies: on one rank, the others idle,
    and on all of them."""
    largest = {}
    for probe in computing:
        kind, size = probe.fields["kind"], probe.fields["shape"].get("bytes")
        if kind in ("triad", "read", "write") or probe.sampled == "few":
            continue
        rung = size if kind == "copy" else None
        largest[kind, probe.fields["dtype"], probe.fields["backend"], rung] = probe
    for probe in largest.values():
        for at_once in (1, world):
            shape = probe.fields["shape"] | {"at_once": at_once}
            yield Planned(
                probe.fields | {"shape": shape},
                probe.needed,
                partial(_on_first_ranks, probe.make, at_once),
                "message",
            )


def _on_first_ranks(make: Callable[[], Callable[[], Any]], at_once: int) -> Callable[[], Any]:
    """The call on so many ranks, and nothing on the others."""
    return make() if dist.get_rank() < at_once else lambda: None
