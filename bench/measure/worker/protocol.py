"""What is asked of the worker and what it answers: a request and a reply for each of its jobs.

Both travel as JSON lines.  A request names its job, so that the worker knows its class; what comes
back is validated by the request's `reply`.  `bench.measure.worker.jobs` says who answers what.
No torch.
"""

from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from bench.core.specs.point import Point
from bench.core.specs.suite import Sampling
from bench.results.counts import StageCount
from bench.results.readings import ColdStart, EndToEnd, GroupReading, Memory, StageTelemetry, Timing
from bench.results.records import (
    Against,
    AttentionRan,
    Correctness,
    Probe,
    Reused,
    SentinelReading,
)
from bench.results.scaling import Message
from models.parallel.spec import Parallel

Samples = dict[str, list[float]]
"""Seconds already taken, by stage or by probe."""
Pairs = list[tuple[str, str]]
"""(dtype, attention backend) of recipes."""


class Reply(BaseModel):
    """What a job gives back."""


class TimedReply(Reply):
    """Of a job that is timed between two readings of the sentinel."""

    sentinel: SentinelReading | None = None
    """None where the second reading failed: the CUDA context broke after the last sample."""


class PointReply(TimedReply):
    """The fields of a PointRecord that only the device can give."""

    note: str | None = None
    """Why the times are not what this device can do."""
    tokens: int | None = None
    counts: dict[str, StageCount] = Field(default_factory=dict)
    timings: dict[str, Timing] = Field(default_factory=dict)
    memory: Memory | None = None
    telemetry: dict[str, StageTelemetry] | None = None
    against: Against | None = None
    attention_ran: AttentionRan | None = None
    correctness: Correctness | None = None
    correctness_missing: str | None = None
    cold_start: ColdStart | None = None
    end_to_end: EndToEnd | None = None
    end_to_end_missing: str | None = None
    group: GroupReading | None = None
    """Of several ranks."""


class TogetherReply(TimedReply):
    """Several points, in the order of the request."""

    note: str | None = None
    points: list[PointReply]


class CeilingsReply(TimedReply):
    """The fields of a CeilingsRecord that only the device can give."""

    left_out: str | None = None
    """Which probes are missing, and why."""
    probes: list[Probe] = Field(default_factory=list)
    telemetry: dict[str, StageTelemetry] | None = None


class PeakReply(Reply):
    """Peak bytes of one stage; None where the system does not say."""

    peak_bytes: int | None
    source: str


class CountReply(Reply):
    """Counts by stage, and bytes of the weights that these stages need."""

    counts: dict[str, StageCount] = Field(default_factory=dict)
    weights: int = 0


class RankReply(Reply):
    """One rank's share of a denoising step."""

    step: StageCount
    messages: list[Message]


class ProbesReply(Reply):
    """The work of each probe, as `bench.measure.probes.kernels` plans it."""

    probes: list[dict[str, Any]]


class RatesReply(Reply):
    """What a quick probe reached."""

    gemm_flops_per_s: dict[str, float]
    """By dtype."""
    copy_bytes_per_s: float


class NodeReply(Reply):
    """Readings of a node by name, and why the others are missing."""

    values: dict[str, Any]
    missing: dict[str, str]


Answer = TypeVar("Answer", bound=Reply)


class Request(BaseModel, Generic[Answer]):
    """One job for the worker."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reply: ClassVar[type[Reply]]
    measures: ClassVar[bool] = False
    """Does it run something on the device, so that the process is no longer as it started?"""
    timed: ClassVar[bool] = False
    """Is the sentinel read before and after it?"""

    def built(self) -> list[Point]:
        """The points that it builds with weights."""
        return []


class MeasurePoint(Request[PointReply]):
    """Time a point's stages, in turns with a baseline where there is one."""

    reply, measures, timed = PointReply, True, True
    job: Literal["point"] = "point"
    point: Point
    sampling: Sampling
    prior: Samples = Field(default_factory=dict)
    baseline: Point | None = None
    reused: dict[str, Reused] = Field(default_factory=dict)
    """Stages that the recipe leaves as the baseline's own point had them; not timed again."""

    def built(self) -> list[Point]:
        return [self.point] if self.baseline is None else [self.point, self.baseline]


class MeasureTogether(Request[TogetherReply]):
    """Time several small points in turns."""

    reply, measures, timed = TogetherReply, True, True
    job: Literal["together"] = "together"
    points: list[Point]
    sampling: Sampling
    prior: list[Samples]

    def built(self) -> list[Point]:
        return self.points


class MeasureCeilings(Request[CeilingsReply]):
    """Time the probes of these dtypes and attention backends."""

    reply, measures, timed = CeilingsReply, True, True
    job: Literal["ceilings"] = "ceilings"
    recipes: Pairs
    sampling: Sampling
    prior: Samples = Field(default_factory=dict)


class MeasureLinks(Request[CeilingsReply]):
    """Time the collectives of so many ranks, and products and copies on all of them at once."""

    reply, measures, timed = CeilingsReply, True, True
    job: Literal["links"] = "links"
    ranks: int = Field(ge=2)
    recipes: Pairs
    sampling: Sampling
    prior: Samples = Field(default_factory=dict)


class CountRank(Request[RankReply]):
    """Count one rank's denoising step on the recipe's mesh; nothing is allocated."""

    reply = RankReply
    job: Literal["rank"] = "rank"
    point: Point


class MeasurePeak(Request[PeakReply]):
    """Read the peak memory of one stage, in a process that has run nothing else."""

    reply, measures = PeakReply, True
    job: Literal["peak"] = "peak"
    point: Point
    stage: str

    def built(self) -> list[Point]:
        return [self.point]


class CountPoint(Request[CountReply]):
    """Count a point's work; nothing is allocated."""

    reply = CountReply
    job: Literal["count"] = "count"
    point: Point


class PlanProbes(Request[ProbesReply]):
    """Say which probes the ceilings would take."""

    reply = ProbesReply
    job: Literal["probes"] = "probes"
    device: str
    recipes: Pairs
    memory_bytes: int | None = None
    """Of the card that is planned for, where it is not the one here."""


class ReadRates(Request[RatesReply]):
    """Look at GEMM and copy for a second."""

    reply = RatesReply
    job: Literal["rates"] = "rates"
    dtypes: list[str]


class ExamineNode(Request[NodeReply]):
    """Read what says whether this node is worth keeping."""

    reply = NodeReply
    job: Literal["doctor"] = "doctor"
    folder: str
    """Where results would go."""


_REQUEST: TypeAdapter[Request] = TypeAdapter(
    Annotated[
        MeasurePoint
        | MeasureTogether
        | MeasureCeilings
        | MeasureLinks
        | MeasurePeak
        | CountPoint
        | CountRank
        | PlanProbes
        | ReadRates
        | ExamineNode,
        Field(discriminator="job"),
    ]
)


def read_request(data: dict[str, Any]) -> Request:
    """A request from its JSON.  Raises pydantic.ValidationError."""
    return _REQUEST.validate_python(data)


def ranks_of(request: Request) -> int:
    """Processes that carry a job out together."""
    if isinstance(request, MeasureLinks):
        return request.ranks
    mesh = mesh_of(request) if isinstance(request, MeasurePoint) else None
    return 1 if mesh is None else mesh.ranks


def mesh_of(request: MeasurePoint) -> Parallel | None:
    """Of the point, else of its baseline; None for a job of one process."""
    meshes = [point.recipe.parallel for point in request.built() if point.recipe.on_several_ranks]
    return meshes[0] if meshes else None


def wants_fresh(request: Request) -> bool:
    """Does a job quantise by torchao?  Importing torchao and building its tensors change settings
    and dispatch of the whole process, so nothing else is measured there."""
    ordinary = ("none", "ternary")
    return any(point.recipe.quantise not in ordinary for point in request.built())
