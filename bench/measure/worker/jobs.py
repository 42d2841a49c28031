"""The worker's jobs, carried out: each request of `bench.measure.worker.protocol` has one function
here, and `ANSWERS` is the only place that names them all."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from bench.core.errors import UserError
from bench.core.known_faults import fault_of
from bench.core.specs.point import Point
from bench.count.point import ModelCount, bytes_of_weights
from bench.count.shipped import shipped_count
from bench.measure.attention.backends import unsupported_reason
from bench.measure.attention.correctness import correctness_missing, correctness_of
from bench.measure.attention.ran import noted
from bench.measure.device.machine import this_machine
from bench.measure.device.memory import free_memory
from bench.measure.errors import Unsupported
from bench.measure.points.against import Pair, measure_against
from bench.measure.points.build import count_stages, said_of_user_code
from bench.measure.points.single import Measured, measure_point
from bench.measure.points.together import measure_together
from bench.measure.points.versus import measure_peak
from bench.measure.probes.ceilings import measure_ceilings, planned_probes
from bench.measure.probes.doctor import examine
from bench.measure.probes.links import measure_links
from bench.measure.probes.rates import quick_rates
from bench.measure.timing.clock import Clock, planted_slowdown
from bench.measure.worker import protocol
from bench.results.scaling import Message


@dataclass(frozen=True)
class Session:
    """What the jobs of one process share."""

    device: torch.device
    clock: Clock
    on_round: Callable[[str, list[float]], None] = lambda stage, samples: None
    """Hears (stage or probe, new samples in seconds) as they come."""


def answer(request: protocol.Request, session: Session) -> protocol.Reply:
    """Carry a job out.  Raises whatever the job does: `bench.measure.worker.failures` sorts it."""
    with said_of_user_code(request.built()):
        return ANSWERS[type(request)](request, session)


def measure_one(request: protocol.MeasurePoint, session: Session) -> protocol.PointReply:
    """A point alone, or in turns with its baseline."""
    point, baseline = request.point, request.baseline
    _check_mesh(point)
    clock, note = _clock_and_note(session, [point])
    counts = counted(point)
    how = {"prior": request.prior, "on_round": session.on_round}
    if baseline is None:
        measured = measure_point(point, counts, session.device, clock, request.sampling, **how)
        return point_reply(point, counts, measured, note=note)
    pair = Pair(point, baseline, counts, counted(baseline), request.reused)
    measured, against = measure_against(pair, session.device, clock, request.sampling, **how)
    return point_reply(point, counts, measured, note=note, against=against)


def _check_mesh(point: Point) -> None:
    """Raises Unsupported where the point cannot run on its recipe's mesh."""
    if not point.recipe.on_several_ranks:
        return
    from bench.count.parallel.point import check_mesh

    try:
        check_mesh(point)
    except UserError as error:
        raise Unsupported(str(error)) from None


def measure_several(request: protocol.MeasureTogether, session: Session) -> protocol.TogetherReply:
    """Several points in turns.  Raises Unsupported where they do not fit together."""
    points = request.points
    clock, note = _clock_and_note(session, points)
    counts = [counted(point) for point in points]
    measured = measure_together(
        points,
        counts,
        session.device,
        clock,
        request.sampling,
        prior=request.prior,
        on_round=lambda i, stage, samples: session.on_round(f"{i}/{stage}", samples),
    )
    replies = [point_reply(*fields) for fields in zip(points, counts, measured, strict=True)]
    return protocol.TogetherReply(note=note, points=replies)


def measure_probes(request: protocol.MeasureCeilings, session: Session) -> protocol.CeilingsReply:
    """The ceilings.  A backend that this device lacks costs its own probe, not the others'; raises
    Unsupported where it lacks them all."""
    reasons = {pair: _lacks(*pair, session.device) for pair in request.recipes}
    lacking = dict.fromkeys(why for why in reasons.values() if why)
    possible = [pair for pair, why in reasons.items() if why is None]
    if not possible:
        raise Unsupported("; ".join(lacking))
    probes, telemetry, missing = measure_ceilings(
        session.device,
        session.clock,
        request.sampling,
        possible,
        prior=request.prior,
        on_round=session.on_round,
    )
    left_out = "; ".join([*lacking, *missing])
    return protocol.CeilingsReply(
        left_out=f"left out: {left_out}" if left_out else None,
        probes=probes,
        telemetry=telemetry,
    )


def measure_group_ceilings(
    request: protocol.MeasureLinks, session: Session
) -> protocol.CeilingsReply:
    """What this rank's group reaches.  Every rank of it answers."""
    probes, missing = measure_links(
        session.device,
        session.clock,
        request.sampling,
        request.recipes,
        prior=request.prior,
        on_round=session.on_round,
    )
    left_out = f"left out: {'; '.join(missing)}" if missing else None
    return protocol.CeilingsReply(left_out=left_out, probes=probes)


def measure_peak_of(request: protocol.MeasurePeak, session: Session) -> protocol.PeakReply:
    """Peak memory of one stage."""
    return protocol.PeakReply(**measure_peak(request.point, request.stage, session.device))


def count_point(request: protocol.CountPoint, session: Session) -> protocol.CountReply:
    """Counts of a point's stages, and bytes of the weights that it builds."""
    point = request.point
    counts = counted(point)
    return protocol.CountReply(counts=counts.stages, weights=bytes_of_weights(point, counts.params))


def count_rank_of(request: protocol.CountRank, session: Session) -> protocol.RankReply:
    """One rank's step.  Raises Unsupported where the point cannot run on its mesh."""
    from bench.count.parallel.point import count_rank

    try:
        counted = count_rank(request.point)
    except UserError as error:
        raise Unsupported(str(error)) from None
    messages = [
        Message(
            axis=sent.message.axis,
            collective=sent.message.collective,
            ranks=sent.message.ranks,
            bytes_sent=sent.message.bytes_sent,
            calls=sent.calls,
        )
        for sent in (*counted.sent, *counted.weights)
    ]
    return protocol.RankReply(step=counted.step, messages=messages)


def plan_probes(request: protocol.PlanProbes, session: Session) -> protocol.ProbesReply:
    """The probes of a kind of device, by the memory of the card that is planned for."""
    free = request.memory_bytes
    if free is None and request.device == session.device.type:
        free = free_memory(session.device)
    return protocol.ProbesReply(probes=planned_probes(request.device, request.recipes, free))


def read_rates(request: protocol.ReadRates, session: Session) -> protocol.RatesReply:
    """GEMM and copy, quickly."""
    return protocol.RatesReply(**quick_rates(session.device, session.clock, request.dtypes))


def examine_node(request: protocol.ExamineNode, session: Session) -> protocol.NodeReply:
    """Readings of the node."""
    return protocol.NodeReply(**examine(session.device, session.clock, request.folder))


ANSWERS: dict[type[protocol.Request], Callable[[Any, Session], protocol.Reply]] = {
    protocol.MeasurePoint: measure_one,
    protocol.MeasureTogether: measure_several,
    protocol.MeasureCeilings: measure_probes,
    protocol.MeasureLinks: measure_group_ceilings,
    protocol.MeasurePeak: measure_peak_of,
    protocol.CountPoint: count_point,
    protocol.CountRank: count_rank_of,
    protocol.PlanProbes: plan_probes,
    protocol.ReadRates: read_rates,
    protocol.ExamineNode: examine_node,
}


_COUNTS: dict[tuple[str, bool, bool], ModelCount] = {}


def counted(point: Point) -> ModelCount:
    """Counts of every stage, as they were shipped or made once: a budget asks for them before the
    point's turn comes."""
    key = (point.subject, "train_step" in point.stages, "trajectory" in point.stages)
    if key not in _COUNTS:
        _COUNTS[key] = shipped_count(point) or count_stages(point)
    return _COUNTS[key]


def point_reply(
    point: Point, counts: ModelCount, measured: Measured, **beside: Any
) -> protocol.PointReply:
    """What was measured of a point, with what was noted of its attention on the way."""
    read = correctness_of(point)
    return protocol.PointReply(
        tokens=counts.tokens,
        counts=counts.stages,
        timings=measured.timings,
        memory=measured.memory,
        telemetry=measured.telemetry,
        cold_start=measured.cold_start,
        end_to_end=measured.end_to_end,
        end_to_end_missing=measured.end_to_end_missing,
        attention_ran=noted(point),
        correctness=read,
        correctness_missing=correctness_missing(point) if read is None else None,
        **beside,
    )


def _clock_and_note(session: Session, points: list[Point]) -> tuple[Clock, str | None]:
    """The session's clock, slowed where a test asks for it, and why times are not to be trusted."""
    clock, slowed = planted_slowdown(session.clock, session.device)
    stages = tuple(stage for point in points for stage in point.stages)
    fault = fault_of(session.device.type, torch.__version__, stages)
    note = "; ".join(said for said in (slowed, fault) if said) or None
    if note:
        print(f"warning: {note}", file=sys.stderr)
    return clock, note


def _lacks(dtype: str, backend: str, device: torch.device) -> str | None:
    """Why a probe of this dtype and attention backend cannot run here."""
    if dtype == "tf32" and device.type != "cuda":
        return "dtype tf32 needs CUDA"
    return unsupported_reason(backend, this_machine(device))
