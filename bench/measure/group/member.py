"""What a rank does: it hears the request, measures with the others, and says how it went."""

import json
import os
import sys
import traceback
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist

from bench.core.specs.point import Point
from bench.measure.device.environment import choose_device
from bench.measure.group.clock import GroupClock
from bench.measure.group.marks import FAILED, RUNS, Marker
from bench.measure.probes.sentinel import Sentinel
from bench.measure.timing.clock import clock_for
from bench.measure.worker.failures import classify
from bench.measure.worker.jobs import Session, measure_group_ceilings, measure_one
from bench.measure.worker.protocol import (
    MeasureLinks,
    MeasurePoint,
    PointReply,
    TimedReply,
    mesh_of,
    read_request,
)
from bench.measure.worker.serve import Sender
from bench.results.readings import GroupReading, RankReading, StageTelemetry
from bench.results.records import SentinelReading
from models.parallel.spec import Parallel
from models.spec import DiTConfig

PATIENCE = timedelta(hours=12)  # the suite has a limit of its own, and kills the group at it
WHOSE = "of several cards: group has each rank's own"

Send = Callable[..., None]


def take_part(events: str, folder: Path, device_name: str | None, threads: int | None) -> None:
    """threads: of this rank, on a CPU; None: its share of the cores.

    Measure one request.  Exits with 1 where this rank failed; the launcher ends the others."""
    rank = int(os.environ["RANK"])
    mark = Marker(folder, int(os.environ["LOCAL_RANK"]))
    mark(RUNS)
    try:
        device = _own_device(device_name, threads or _share_of_cores())
        control = _join(device)
        send = _sender(events, rank)
        send("hello")
        request = _heard(rank, control)
        reply = _measured(request, device, control, mark, send)
        send("done", **reply.model_dump(mode="json"), ends=True)
        dist.barrier(control)
    except Exception as error:
        outcome, reason = classify(error)
        mark(FAILED, outcome, reason)
        if outcome == "error":
            traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)  # a group whose other ranks wait is not to be torn down here
    dist.destroy_process_group()


def _share_of_cores() -> int:
    return max(1, len(os.sched_getaffinity(0)) // int(os.environ["LOCAL_WORLD_SIZE"]))


def _own_device(name: str | None, threads: int) -> torch.device:
    """The card of this rank, or so many threads of the CPU."""
    device = choose_device(name)
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False  # its default is true
    return device


def _join(device: torch.device) -> Any:
    """The default group, for the model, and beside it one of gloo, whose barrier holds the host."""
    backend = "cuda:nccl,cpu:gloo" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE)
    return dist.new_group(backend="gloo", timeout=PATIENCE)


def _heard(rank: int, control: Any) -> MeasurePoint | MeasureLinks:
    """Rank 0 reads the request and tells the others."""
    said = [sys.stdin.readline() if rank == 0 else None]
    dist.broadcast_object_list(said, src=0, group=control)
    request = read_request(json.loads(said[0] or "{}"))
    assert isinstance(request, MeasurePoint | MeasureLinks)
    return request


def _sender(path: str, rank: int) -> Send:
    """Events of rank 0; the others say nothing."""
    if rank != 0:
        return lambda event, **fields: None
    return Sender(os.fdopen(os.open(path, os.O_WRONLY), "w", buffering=1))


def _measured(
    request: MeasurePoint | MeasureLinks,
    device: torch.device,
    control: Any,
    mark: Marker,
    send: Send,
) -> TimedReply:
    """Do it with the others, between two readings of this rank's sentinel."""
    sentinel = Sentinel(device, clock_for(device))
    before = sentinel.read()
    clock = GroupClock(clock_for(device), control, mark)
    if isinstance(request, MeasurePoint):
        reply: TimedReply = _timed_point(request, device, clock, send)
    else:
        session = Session(device, clock, partial(_tell, send))
        reply = measure_group_ceilings(request, session)
    reading = SentinelReading(before_s=before, after_s=sentinel.read())
    return reply.model_copy(update={"sentinel": reading})


def _tell(send: Send, stage: str, samples: list[float]) -> None:
    send("round", stage=stage, samples_s=samples)


def _timed_point(
    request: MeasurePoint, device: torch.device, clock: GroupClock, send: Send
) -> PointReply:
    def on_round(stage: str, samples: list[float]) -> None:
        clock.keep(stage, samples)
        _tell(send, stage, samples)

    reply = measure_one(request, Session(device, clock, on_round))
    group = _gathered(request, reply, clock)
    telemetry = _without_energy(reply.telemetry)
    return reply.model_copy(update={"group": group, "telemetry": telemetry})


def _joules(reply: PointReply) -> dict[str, float]:
    """Of this rank's card, by stage."""
    telemetry = reply.telemetry or {}
    return {stage: read.energy.energy_j for stage, read in telemetry.items() if read.energy}


def _without_energy(
    telemetry: dict[str, StageTelemetry] | None,
) -> dict[str, StageTelemetry] | None:
    """A point's energy is that of all its cards; rank 0 read its own, which stands in `group`."""
    if telemetry is None:
        return None
    return {
        stage: read.model_copy(update={"energy": None, "missing": read.missing | {"energy": WHOSE}})
        for stage, read in telemetry.items()
    }


def _not_timed(point: Point, parallel: Parallel) -> str | None:
    """Why some collectives of a point are out of sight; None where each is timed."""
    own = isinstance(point.model.denoiser, DiTConfig)
    whose = {
        "fully_shard": parallel.shard_weights,
        "diffusers": parallel.sequence > 1 and not own,
        "compiled code": point.recipe.compiles,
    }
    hidden = [name for name, there in whose.items() if there]
    return f"collectives of {', '.join(hidden)} are not timed one by one" if hidden else None


def _gathered(request: MeasurePoint, reply: PointReply, clock: GroupClock) -> GroupReading:
    """What each rank read, on every rank."""
    parallel = mesh_of(request)
    assert parallel is not None
    reason = _not_timed(request.point, parallel)
    mine = RankReading(
        rank=dist.get_rank(),
        median_s={stage: median(own) for stage, own in clock.own.items()},
        peak_allocated=reply.memory.peak_allocated if reply.memory else None,
        energy_j=_joules(reply),
        in_collectives_s=clock.waiting if reason is None else None,
    )
    every: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(every, mine.model_dump(), group=clock.group)
    return GroupReading(
        mesh=parallel.words(),
        of_one_sample=parallel.of_one_sample,
        ranks=[RankReading(**reading) for reading in every],
        nodes=dist.get_world_size() // int(os.environ["LOCAL_WORLD_SIZE"]),
        threads=torch.get_num_threads(),
        reason=reason,
    )
