"""The versioned schema of what is measured.  SI units, named in the keys; null where a reading is not to be had.

A record is one line of records.jsonl: a point measured once, or the ceilings of the device.  Keys may be added within
a version; a key that changes its meaning makes a new version (and an entry in CHANGELOG.md).
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

SCHEMA_VERSION = 1

Outcome = Literal["ok", "oom", "error", "timeout", "skipped_budget", "skipped_unsupported", "unstable"]
OUTCOMES: tuple[str, ...] = ("ok", "oom", "error", "timeout", "skipped_budget", "skipped_unsupported", "unstable")
FINISHED = frozenset({"ok", "skipped_unsupported", "unstable"})
"""On resume not measured again; what failed or was left out for want of time is tried anew."""
Provenance = Literal["counted", "measured", "fitted", "extrapolated", "claimed"]


Seconds = Annotated[float, Field(gt=1e-12, lt=1e9)]
"""Of something that was timed: rates and logarithms are taken of it."""
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Work = Annotated[int, Field(ge=0)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())


OperatorKind = Literal["linear", "attention", "conv", "small_conv", "other", "activation", "memory"]


class Operators(Strict):
    """A stage's operators that touch memory, column by column, equal ones in one row.  Provenance: counted.

    What the cost model prices one by one: a small product runs at another rate than a large one."""

    kind: list[OperatorKind]
    """small_conv: one that PyTorch hands to its im2col kernel on a CPU.  other: a product of another sort.  activation:
    a transcendental function of each element.  memory: norms, copies and the rest of what holds no product."""
    m: list[Work]
    """Rows of a product; queries of attention; output positions of a convolution.  0 without a product."""
    n: list[Work]
    """Columns; keys; output channels of a group."""
    k: list[Work]
    """Summed over; head size; input channels of a group x taps."""
    flops: list[Work]
    """Of one call, as the four that follow."""
    bytes: list[Work]
    """Read and written, run unfused but for attention."""
    bytes_out: list[Work]
    calls: list[Work]

    @model_validator(mode="after")
    def _rectangular(self) -> "Operators":
        if len({len(column) for _, column in self}) > 1:
            raise ValueError("operators: its columns differ in length")
        return self

    def rows(self) -> Counter[tuple]:
        """(kind, m, n, k, flops, bytes, bytes_out) -> calls."""
        return Counter({row[:-1]: row[-1] for row in zip(*(column for _, column in self), strict=True)})

    @classmethod
    def of(cls, rows: Counter[tuple]) -> "Operators":
        """Back from `rows`; those without calls left out."""
        table = [(*row, calls) for row, calls in sorted(rows.items()) if calls]
        columns = zip(*table, strict=True) if table else [()] * len(cls.model_fields)
        return cls(**dict(zip(cls.model_fields, map(list, columns), strict=True)))


class StageCount(Strict):
    """One stage's work, counted on meta tensors at the workload's batch."""

    linear_flops: Work
    attention_flops: Work
    conv_flops: Work
    other_flops: Work
    norm_flops: Work
    """fvcore's estimate for norms, in no total."""
    bytes_modelled_min: Work
    bytes_modelled_max: Work
    bytes_elementwise: Work
    """Modelled bytes of the operators without products."""
    bytes_largest_operator: Work
    bytes_peak_activations: Work
    """Modelled peak of the tensors alive during the stage, beside weights and inputs (bench.count.memory)."""
    kernels: Work
    """Operators that touch memory."""
    uncounted_ops: dict[str, int]
    """Operators without products: name -> calls."""
    operators: Operators | None = None
    """Null in records made before operators were kept."""

    @property
    def flops(self) -> int:
        """Products and convolutions; 1 MAC = 2 FLOPs."""
        return self.linear_flops + self.attention_flops + self.conv_flops + self.other_flops


class Launch(Strict):
    """A stage's call beside its replay as a CUDA graph, which no host holds up.  Provenance: measured."""

    host_bound: bool | None
    """The replay saves over 10 %: the host takes longer to launch the kernels than the device to run them."""
    eager_s: Seconds
    """Median of the samples."""
    replay_s: Seconds | None
    gap_s: float | None
    """eager_s less replay_s; noise may make it negative."""
    gap: float | None
    """As a share of eager_s."""
    reason: str | None
    """Why there is no replay."""


class Timing(Strict):
    """One stage's seconds.  Provenance: measured."""

    samples_s: Annotated[list[Seconds], Field(min_length=1)]
    """In the order taken, warm-up not among them."""
    warmup_s: list[Seconds]
    median_s: Seconds
    low_s: Seconds
    """Of the confidence interval of the median."""
    high_s: Seconds
    confidence: float
    """That the interval has: at least 0.95, or less where fewer than six samples have only their range to give."""
    p5_s: Seconds
    p25_s: Seconds
    p75_s: Seconds
    p95_s: Seconds
    n: int
    stop: Literal["converged", "noise_stable", "timeout", "max_samples"]
    warmup_settled: bool
    """The last three warm-up calls agreed; a call over 5 s needs one alone."""
    launch: Launch | None = None
    """None for probes, and in records older than this field."""
    compile_s: Seconds | None = None
    """Of the very first call where the recipe compiles: compilation and autotuning are in it, and in no sample and no
    warm-up.  A later stage finds compiled what an earlier one ran."""

    @property
    def relative_half_width(self) -> float:
        """Half the median's interval over the median."""
        return (self.high_s - self.low_s) / 2 / self.median_s


class StageMemory(Strict):
    """Peaks of one stage in bytes, on CUDA."""

    peak_allocated: int
    """By the tensors of the point (and of what it calls), from PyTorch's caching allocator."""
    peak_reserved: int | None
    """By that allocator, what it keeps for later included; null where other points were resident."""
    device_used: int | None
    """Of the whole device right after the stage: the CUDA context and other processes included; null as above."""
    activations: int
    """peak_allocated less weights and inputs."""


class Memory(Strict):
    """Peaks in bytes over the stages of a point."""

    weights: int
    """Of the parts that the timed stages run, counted; in the recipe's dtype, before it quantises or prunes them."""
    inputs: int | None = None
    """Of the latents, prompts and conditions, counted."""
    peak_allocated: int | None
    """CUDA's caching allocator; on a CPU the process's peak resident memory, Python and torch included."""
    peak_reserved: int | None
    by_stage: dict[str, StageMemory] = Field(default_factory=dict)
    """Empty on a CPU."""
    reason: str | None
    """Why a reading is null."""


class Summary(Strict):
    """One reading over a stage."""

    min: float
    median: float
    max: float
    n: int
    """Samples that had it."""


class Series(Strict):
    """The samples themselves, thinned evenly to a few hundred; column by column."""

    t_s: list[float]
    """Since the first."""
    sm_clock_hz: list[float | None]
    memory_clock_hz: list[float | None]
    power_w: list[float | None]
    temperature_c: list[float | None]
    throttle_reasons: list[list[str] | None]


class Energy(Strict):
    """From the card's total-energy counter over whole, synchronised calls; idle power included.  Provenance: measured."""

    energy_j: Positive
    """Of one call."""
    power_w: Positive
    """Mean over the window."""
    calls: Annotated[int, Field(ge=1)]
    window_s: Seconds


READINGS = ("sm_clock_hz", "memory_clock_hz", "power_w", "temperature_c")
UTILISATIONS = ("dram_util_percent", "tensor_util_percent", "sm_util_percent", "sm_occupancy_percent")


class StageTelemetry(Strict):
    """What the card did during one stage, by NVML.  Provenance: measured, but for what is called derived."""

    reason: str | None
    """Why there is nothing at all; else each null has its own in `missing`."""
    missing: dict[str, str]
    n: int
    """Samples."""
    sampled_over: Literal["timed", "energy"] | None
    """The timed samples; where they were too short for one reading, the energy window."""
    sm_clock_hz: Summary | None
    memory_clock_hz: Summary | None
    power_w: Summary | None
    """As NVML averages it, on some cards over a second: `energy` is the better figure."""
    temperature_c: Summary | None
    throttle_fractions: dict[str, float] | None
    """Reason -> share of the samples that had it."""
    throttled: bool | None
    """A slowdown by heat, hardware or power brake in more than 5 % of the samples: the timing is kept, and marked."""
    power_limited: bool | None
    """The software power cap in more than 5 %: usual for a busy card, and no fault of it."""
    series: Series | None
    energy: Energy | None
    dram_util_percent: float | None
    """NVML GPM, over the energy window: share of the peak DRAM bandwidth."""
    tensor_util_percent: float | None
    """Share of time in which the SMs' tensor pipes were busy."""
    sm_util_percent: float | None
    sm_occupancy_percent: float | None
    dram_bytes_per_s_derived: float | None
    """dram_util_percent of the datasheet's bandwidth."""

    @model_validator(mode="after")
    def _every_gap_has_a_reason(self) -> "StageTelemetry":
        names = (*READINGS, "throttle_fractions", "energy", *UTILISATIONS, "dram_bytes_per_s_derived")
        gaps = [name for name in names if getattr(self, name) is None and name not in self.missing]
        if gaps and self.reason is None:
            raise ValueError(f"{', '.join(gaps)}: null, and `missing` does not say why")
        return self


class Environment(Strict):
    """What the measurement depended on.  Nothing here identifies a person or a host."""

    gpu: str
    """Name in configs/gpus, else a slug of the device's name."""
    device: Literal["cpu", "cuda"]
    device_name: str
    device_uuid_hash: str | None
    """SHA-256 of the UUID, 16 digits."""
    driver: str | None
    cuda: str | None
    cudnn: int | None
    torch: str
    python: str
    os: str
    threads: int
    memory_bytes: int
    code_version: str

    def digest(self) -> str:
        """Of all of it but the size of memory, 16 hex digits: samples that may stand in one record share it, and so come
        from one card."""
        kept = json.dumps(self.model_dump(exclude={"memory_bytes"}), sort_keys=True)
        return hashlib.sha256(kept.encode()).hexdigest()[:16]

    def differences(self, other: "Environment") -> list[str]:
        """What would make two results unlike: 'torch 2.11 / 2.13', ...  Another card of the same kind does not: whoever
        mixes or compares them says so (`cards_in`)."""
        mine, theirs = self.model_dump(), other.model_dump()
        return [f"{key} {mine[key]} / {theirs[key]}" for key in mine
                if key not in ("memory_bytes", "device_uuid_hash") and mine[key] != theirs[key]]


def cards_in(environments: Iterable[Environment]) -> str | None:
    """Which cards of one kind were measured on, in words; None where it was one, or the systems do not say."""
    cards = dict.fromkeys(e.device_uuid_hash for e in environments if e.device_uuid_hash is not None)
    if len(cards) < 2:
        return None
    return f"{len(cards)} cards of one kind: {', '.join(cards)}"


MEMORY_PROBES = ("copy", "triad", "read", "write")


class Probe(Strict):
    """One ceiling measurement."""

    kind: Literal["gemm", "attention", "conv3d", "conv3d_benchmark", "small_conv3d", "copy", "triad", "read", "write",
                  "fresh_write", "activation"]
    dtype: str
    backend: str | None
    """SDPA backend of an attention probe, as a recipe names it."""
    backend_ran: str | None = None
    """The family of kernels that ran, as in AttentionRan; None in records older than this field."""
    shape: dict[str, int]
    """gemm: m n k; attention: batch heads tokens head_dim; conv3d, small_conv3d and conv3d_benchmark (cuDNN's algorithm
    chosen by timing): channels frames height width; the others: bytes.
    fresh_write: an array allocated anew and written; activation: GELU, read and written."""
    flops: Annotated[int, Field(ge=1)] | None
    bytes_moved: Annotated[int, Field(ge=1)] | None
    """Read and written."""
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
    """Seconds of one fixed matrix product around a job: how the machine itself drifted (bench.measure.sentinel)."""

    before_s: Seconds
    after_s: Seconds


class Divergence(Strict):
    """How far one output is from another: same seed, same weights, whole trajectory; where none is among the stages, one
    denoising step.  Provenance: measured."""

    relative_l2: Annotated[float, Field(ge=0.0)]
    """Of the latents: norm of the difference over the baseline's."""
    cosine: Annotated[float, Field(ge=-1.001, le=1.001)]
    """Of the latents."""
    psnr_db: float | None
    """After decoding; its peak is the range of the baseline's pixels.  null: the same to the last bit, or not decoded."""
    identical: bool
    """The latents, to the last bit."""
    samples: int
    """That both have: a larger batch begins with the baseline's."""


class Reused(Strict):
    """A stage that a recipe leaves as its baseline has it, not timed again: the reading of the baseline's own point."""

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
    """Both were resident and visited in turns; else one after the other, and a drift of the machine is in the ratio."""
    reason: str | None
    """Why not in turns."""
    timings: dict[str, Timing]
    """The baseline's, of the stages that the recipe changes: fewer samples than of a point of its own."""
    reused: dict[str, Reused] = Field(default_factory=dict)
    """By stage: what stands for both sides, since the recipe leaves it as it is."""
    divergence: Divergence | None
    divergence_missing: str | None


class AttentionRan(Strict):
    """Which kernel computed attention, whatever the recipe asked for.  Provenance: measured."""

    backend: str
    """flash, cudnn, efficient, math, onednn, flash3, fp8-flash3, sage, flex: the family of kernels that ran."""
    chosen_by: Literal["recipe", "torch", "measured"]
    """recipe: it names the backend.  torch: SDPA chose.  measured: the fastest inside the model."""
    kernel: str | None
    """Name of the longest attention kernel of one profiled call; null on a CPU or where none was seen."""
    candidates_s: dict[str, float] = Field(default_factory=dict)
    """Where it was chosen by measuring: seconds of a forward under each backend, to the end of its second largest attention
    call."""
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
    """One line where the outcome is not ok, where ceilings were measured but for a probe that cannot run here, or where
    LDT_BENCH_TEST_SLOWDOWN made a point's times untrue."""
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
    """None where nothing was checked (a CPU's small points), and in records older than this field."""

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
    def label(self) -> str:
        return f"{self.model} {self.workload} {self.recipe}"


class CeilingsRecord(_RecordBase):
    """What this card reached."""

    kind: Literal["ceilings"] = "ceilings"
    probes: list[Probe]
    telemetry: dict[str, StageTelemetry] | None
    """By kind of probe."""

    @property
    def label(self) -> str:
        return "ceilings"

    def best(self, kind: str, dtype: str | None = None, backend: str | None = None) -> Probe | None:
        """Fastest probe of a kind (of one dtype, of one SDPA backend), None where it was not measured.

        For memory the best of those with the largest array: smaller ones fit a cache."""
        probes = [p for p in self.probes
                  if p.kind == kind and dtype in (None, p.dtype) and backend in (None, p.backend)]
        if kind in MEMORY_PROBES and probes:
            largest = max(p.shape["bytes"] for p in probes)
            probes = [p for p in probes if p.shape["bytes"] == largest]
        return max(probes, key=lambda p: p.rate, default=None)

    def peak(self, kind: str, dtype: str | None = None, backend: str | None = None) -> float | None:
        """Rate of the best probe."""
        best = self.best(kind, dtype, backend)
        return best.rate if best else None


Record = Annotated[PointRecord | CeilingsRecord, Field(discriminator="kind")]
