"""From what the worker answers to the record of a job."""

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from bench.core.specs.point import Point
from bench.measure.timing.sampling import unstable_reason
from bench.measure.worker.protocol import PointReply
from bench.results.environment import Environment
from bench.results.records import Against, CeilingsRecord, PointRecord


@dataclass(frozen=True)
class Stopwatch:
    """When a job began, and how long it has taken since."""

    started_s: float = field(default_factory=lambda: time.monotonic())
    started_utc: str = field(
        default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds")
    )

    def read(self, shared_by: int = 1) -> dict[str, Any]:
        """The fields of a record.  shared_by: jobs that took the time together."""
        wall_s = (time.monotonic() - self.started_s) / shared_by
        return {"started_utc": self.started_utc, "wall_s": round(wall_s, 3)}


def point_record(point: Point, reply: PointReply, **common: Any) -> PointRecord:
    """The record of a point; `unstable` where one of its stages is.  common: the fields that every
    record has."""
    record = PointRecord(
        **common,
        model=point.model.name,
        workload=point.workload.name,
        recipe=point.recipe.name,
        point=point.model_dump(mode="json"),
        tokens=point.model.tokens(point.workload),
        counts=reply.counts,
        timings=reply.timings,
        memory=reply.memory,
        telemetry=reply.telemetry,
        against=reply.against,
        attention_ran=reply.attention_ran,
        correctness=reply.correctness,
        correctness_missing=reply.correctness_missing,
        cold_start=reply.cold_start,
        end_to_end=reply.end_to_end,
        end_to_end_missing=reply.end_to_end_missing,
        group=reply.group,
    )
    if record.outcome != "ok":
        return record
    unstable = [reason for item in record.timed if (reason := unstable_reason(*item))]
    if not unstable:
        return record
    reason = "; ".join(filter(None, [record.reason, *unstable]))
    return record.model_copy(update={"outcome": "unstable", "reason": reason})


def not_compared(baseline: Point, why: str) -> Against:
    """What a point was to be held against, where it was not measured."""
    return Against(
        baseline=baseline.recipe.name,
        point=baseline.model_dump(mode="json"),
        in_turns=False,
        reason=None,
        timings={},
        divergence=None,
        divergence_missing=why,
    )


def is_baseline(record: PointRecord | CeilingsRecord, now: Environment) -> bool:
    """Was it measured by itself, here and well?  Its stages then stand for those of a recipe that
    leaves them as they are."""
    return (
        isinstance(record, PointRecord)
        and record.outcome == "ok"
        and record.against is None
        and record.environment.digest() == now.digest()
    )
