"""The versioned schema of what is measured.  SI units, named in the keys; null where there is no
reading.

A record is one line of records.jsonl: a point measured once, or the ceilings of the device.  Keys
may be added within a version; a key that changes its meaning makes a new version (and an entry in
CHANGELOG.md).
"""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from bench.results.base import Positive, Seconds, Strict
from bench.results.counts import StageCount
from bench.results.environment import Environment
from bench.results.readings import ColdStart, EndToEnd, GroupReading, Memory, StageTelemetry, Timing
from bench.results.scaling import StepOnRanks

SCHEMA_VERSION = 1

Outcome = Literal[
    "ok", "oom", "error", "timeout", "skipped_budget", "skipped_unsupported", "unstable"
]
OUTCOMES: tuple[str, ...] = (
    "ok",
    "oom",
    "error",
    "timeout",
    "skipped_budget",
    "skipped_unsupported",
    "unstable",
)
FINISHED = frozenset({"ok", "skipped_unsupported", "unstable"})
"""On resume not measured again; what failed or was left out for want of time is tried anew."""


MEMORY_PROBES = ("copy", "triad", "read", "write")


class Probe(Strict):
    """One ceiling measurement."""

    kind: Literal[
        "gemm",
        "attention",
        "conv3d",
        "conv3d_benchmark",
        "small_conv3d",
        "copy",
        "triad",
        "read",
        "write",
        "fresh_write",
        "activation",
        "all-to-all",
        "all-gather",
        "reduce-scatter",
        "all-reduce",
        "point-to-point",
    ]
    dtype: str
    backend: str | None
    """SDPA backend of an attention probe, as a recipe names it."""
    backend_ran: str | None = None
    """The family of kernels that ran, as in AttentionRan; None in records older than this field."""
    backend_ran_missing: str | None = None
    """Of an attention probe: why no family was read."""
    shape: dict[str, int]
    """gemm: m n k; attention: batch heads tokens head_dim; conv3d, small_conv3d and
    conv3d_benchmark (cuDNN's algorithm chosen by timing): channels frames height width; the others:
    bytes. fresh_write: an array allocated anew and written; activation: GELU, read and written.
    Collectives: bytes that each rank puts in, ranks of the group, across: 1 where it goes
    over several nodes. at_once, in ceilings of several
    ranks: so many of them ran the probe together."""
    flops: Annotated[int, Field(ge=1)] | None
    bytes_moved: Annotated[int, Field(ge=1)] | None
    """Read and written; of a collective, sent by a rank."""
    timing: Timing

    @model_validator(mode="after")
    def _some_work(self) -> "Probe":
        if (self.flops is None) == (self.bytes_moved is None):
            raise ValueError("a probe has either flops or bytes_moved")
        return self

    @property
    def rate(self) -> float:
        """FLOP/s or bytes/s at the median."""
        work = self.flops if self.flops is not None else self.bytes_moved
        assert work is not None
        return work / self.timing.median_s


class SentinelReading(Strict):
    """Seconds of one fixed matrix product around a job: how the machine itself drifted
    (bench.measure.probes.sentinel)."""

    before_s: Seconds
    after_s: Seconds


class Divergence(Strict):
    """How far one output is from another: same seed, same weights, whole trajectory; where none is
    among the stages, one denoising step.  Provenance: measured."""

    relative_l2: Annotated[float, Field(ge=0.0)]
    """Of the latents: norm of the difference over the baseline's."""
    cosine: Annotated[float, Field(ge=-1.001, le=1.001)]
    """Of the latents."""
    psnr_db: float | None
    """After decoding; its peak is the range of the baseline's pixels.  null: the same to the last
    bit, or not decoded."""
    identical: bool
    """The latents, to the last bit."""
    samples: int
    """That both have: a larger batch begins with the baseline's."""


class BaselineNoise(Strict):
    """The baseline's output against its own.  Provenance: measured."""

    rerun: Divergence
    """The same call once more."""
    seeds: list[Divergence]
    """Between each two of three seeds of the inputs: how far apart other clips are."""


class Reused(Strict):
    """A stage that a recipe leaves as its baseline has it, not timed again: the reading of the
    baseline's own point."""

    timing: Timing
    energy_j: Positive | None
    """Of one call."""
    peak_allocated: int | None
    """Bytes, on CUDA."""


class Against(Strict):
    """A point beside its baseline: the same model and workload under another recipe."""

    baseline: str
    """The recipe's name."""
    point: dict[str, Any]
    """The baseline's whole resolved Point."""
    in_turns: bool
    """Both were resident and visited in turns; else one after the other, and a drift of the machine
    is in the ratio."""
    reason: str | None
    """Why not in turns."""
    timings: dict[str, Timing]
    """The baseline's, of the stages that the recipe changes: fewer samples than of a point of its
    own."""
    reused: dict[str, Reused] = Field(default_factory=dict)
    """By stage: what stands for both sides, since the recipe leaves it as it is."""
    divergence: Divergence | None
    divergence_missing: str | None
    noise: BaselineNoise | None = None
    """By which the divergence can be judged; None in records older than this field."""
    noise_missing: str | None = None


class AttentionRan(Strict):
    """Which kernel computed attention, whatever the recipe asked for.  Provenance: measured."""

    backend: str
    """flash, cudnn, efficient, math, onednn, flash3, fp8-flash3, sage, flex: the family of kernels
    that ran."""
    chosen_by: Literal["recipe", "torch", "measured"]
    """recipe: it names the backend.  torch: SDPA chose.  measured: the fastest inside the model."""
    kernel: str | None
    """Name of the longest attention kernel of one profiled call; null on a CPU or where none was
    seen."""
    candidates_s: dict[str, float] = Field(default_factory=dict)
    """Where it was chosen by measuring: seconds of a forward under each backend, to the end of its
    second largest attention call."""
    reason: str | None = None
    """Why a reading is null."""


class Correctness(Strict):
    """Attention of a stage, at its own size, against a float64 reference.  Provenance: measured."""

    rows: Annotated[int, Field(ge=1)]
    """Query rows that were compared, over batch and heads."""
    tokens: Annotated[int, Field(ge=1)]
    """Keys that each of them attends to."""
    relative_error: Annotated[float, Field(ge=0.0)] | None
    """Norm of the difference over the reference's; null where the output is not finite."""
    finite: bool
    """Are all numbers of the stage's whole output finite?"""
    tolerance: Positive
    """Over this the point is an error."""


class _RecordBase(Strict):
    schema_version: Literal[1] = SCHEMA_VERSION
    fingerprint: str
    suite: str
    started_utc: str
    wall_s: float
    outcome: Outcome
    reason: str | None
    """One line where the outcome is not ok, where ceilings were measured but for a probe that
    cannot run here, or where LDT_BENCH_TEST_SLOWDOWN made a point's times untrue."""
    environment: Environment
    sentinel: SentinelReading | None = None


class PointRecord(_RecordBase):
    """A point measured once."""

    kind: Literal["point"] = "point"
    model: str
    workload: str
    recipe: str
    point: dict[str, Any]
    """The whole resolved Point, so that a record can be run again without the repository."""
    tokens: Annotated[int, Field(ge=1)]
    counts: dict[str, StageCount]
    """By stage, and `forward` for one call of the denoiser."""
    timings: dict[str, Timing]
    memory: Memory | None
    telemetry: dict[str, StageTelemetry] | None
    """By stage."""
    against: Against | None = None
    """Where the suite names a baseline."""
    attention_ran: AttentionRan | None = None
    """None where the point has no attention, and in records older than this field."""
    correctness: Correctness | None = None
    """None where nothing was compared, and in records older than this field."""
    correctness_missing: str | None = None
    """Why nothing was compared."""
    group: GroupReading | None = None
    """Where the recipe has a mesh."""
    cold_start: ColdStart | None = None
    """None in records older than this field."""
    end_to_end: EndToEnd | None = None
    """Where all stages of a video were timed."""
    end_to_end_missing: str | None = None
    """Why there is none."""
    predicted: StepOnRanks | None = None
    """Of a denoising step on a mesh, made before it was measured."""
    predicted_missing: str | None = None
    """Why there is none."""

    @model_validator(mode="after")
    def _can_be_calibrated(self) -> "PointRecord":
        for part, field in (("workload", "guidance"), ("recipe", "dtype"), ("recipe", "attention")):
            settings = self.point.get(part)
            if not isinstance(settings, dict) or not isinstance(settings.get(field), str):
                raise ValueError(f"point.{part}.{field} is missing")
        for stage in self.timings:
            if stage not in self.counts or self.counts[stage].flops == 0:
                raise ValueError(f"timings.{stage}: it has no counted work")
        return self

    @property
    def timed(self) -> list[tuple[str, Timing]]:
        """What was timed for it, by stage: its own and its baseline's."""
        theirs = self.against.timings if self.against is not None else {}
        beside = [(f"baseline's {stage}", timing) for stage, timing in theirs.items()]
        return [*self.timings.items(), *beside]

    @property
    def on_several_ranks(self) -> bool:
        """Its seconds are those of a group: no rate of one card follows from them."""
        return self.group is not None

    @property
    def real_weights(self) -> dict[str, str]:
        """SHA-256 by part of the weights that were not random."""
        return (self.point.get("model") or {}).get("weights") or {}

    @property
    def label(self) -> str:
        return f"{self.model} {self.workload} {self.recipe}"

    @property
    def joules(self) -> dict[str, float]:
        """Energy of one call of each stage whose energy was read; of a group, of one sample."""
        if self.group is not None:
            return self.group.joules
        telemetry = self.telemetry or {}
        return {stage: t.energy.energy_j for stage, t in telemetry.items() if t.energy is not None}


class CeilingsRecord(_RecordBase):
    """What this card reached, or what several ranks reached together."""

    kind: Literal["ceilings"] = "ceilings"
    ranks: Annotated[int, Field(ge=2)] | None = None
    """None: one process."""
    nodes: Annotated[int, Field(ge=1)] = 1
    """That these ranks fill."""
    probes: list[Probe]
    telemetry: dict[str, StageTelemetry] | None
    """By kind of probe."""

    @property
    def label(self) -> str:
        return "ceilings" if self.ranks is None else f"ceilings of {self.ranks} ranks"

    @property
    def timed(self) -> list[tuple[str, Timing]]:
        """By probe."""
        return [(f"{probe.kind} {probe.shape}", probe.timing) for probe in self.probes]

    def best(self, kind: str, dtype: str | None = None, backend: str | None = None) -> Probe | None:
        """Fastest probe of a kind (of one dtype, of one SDPA backend), None where it was not
        measured.

        For memory the best of those with the largest array: smaller ones fit a cache."""
        probes = [
            p
            for p in self.probes
            if p.kind == kind and dtype in (None, p.dtype) and backend in (None, p.backend)
        ]
        if kind in MEMORY_PROBES and probes:
            largest = max(p.shape["bytes"] for p in probes)
            probes = [p for p in probes if p.shape["bytes"] == largest]
        return max(probes, key=lambda p: p.rate, default=None)

    def peak(self, kind: str, dtype: str | None = None, backend: str | None = None) -> float | None:
        """Rate of the best probe."""
        best = self.best(kind, dtype, backend)
        return best.rate if best else None


Record = Annotated[PointRecord | CeilingsRecord, Field(discriminator="kind")]
