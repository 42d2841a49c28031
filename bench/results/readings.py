"""What was read while a stage was timed: seconds, memory, power, clocks."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from bench.core.quantity import Quantity
from bench.results.base import Positive, Seconds, Strict


class Launch(Strict):
    """A stage's call beside its replay as a CUDA graph, which no host holds up.  Provenance:
    measured."""

    host_bound: bool | None
    """The replay saves over 10 %: the host takes longer to launch the kernels than the device to
    run them."""
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
    """That the interval has: at least 0.95, or less where fewer than six samples have only their
    range to give."""
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
    """Of the very first call where the recipe compiles: compilation and autotuning are in it, and
    in no sample and no warm-up.  A later stage finds compiled what an earlier one ran."""

    @property
    def seconds(self) -> Quantity:
        """The median with its interval."""
        return Quantity(self.median_s, self.low_s, self.high_s, "s", "measured")

    @property
    def relative_half_width(self) -> float:
        """Half the median's interval over the median."""
        return (self.high_s - self.low_s) / 2 / self.median_s


class ColdStart(Strict):
    """What a point takes before its first sample.  Provenance: measured, once."""

    build_s: Seconds
    """Modules laid out, weights drawn or read, everything on the device, the recipe carried
    out; not the import of libraries."""
    first_s: dict[str, Seconds]
    """By stage: its very first call, in the order of the point's stages.  Kernels are loaded and,
    where the recipe compiles, compiled in it."""
    process_is_new: bool
    """Nothing was measured in this process before; else libraries and kernels may be loaded."""


class EndToEnd(Strict):
    """A whole batch of videos, text to pixels in one go, beside the sum of its stages.  Provenance:
    measured, once."""

    video_s: Seconds
    parts_s: dict[str, Seconds]
    """By stage: calls in one video times their median."""

    @property
    def rest_s(self) -> float:
        """What no stage explains; below 0 where they ran faster in one go."""
        return self.video_s - sum(self.parts_s.values())


class StageMemory(Strict):
    """Peaks of one stage in bytes, on CUDA."""

    peak_allocated: int
    """By the tensors of the point (and of what it calls), from PyTorch's caching allocator."""
    peak_reserved: int | None
    """By that allocator, what it keeps for later included; null where other points were
    resident."""
    device_used: int | None
    """Of the whole device right after the stage: the CUDA context and other processes included;
    null as above."""
    activations: int
    """peak_allocated less weights and inputs."""


class Memory(Strict):
    """Peaks in bytes over the stages of a point."""

    weights: int
    """Of the parts that the timed stages run, counted; in the recipe's dtype, before it quantises
    or prunes them."""
    inputs: int | None = None
    """Of the latents, prompts and conditions, counted."""
    peak_allocated: int | None
    """CUDA's caching allocator; on a CPU the process's peak resident memory, Python and torch
    included."""
    peak_reserved: int | None
    by_stage: dict[str, StageMemory] = Field(default_factory=dict)
    """Empty on a CPU."""
    reason: str | None
    """Why a reading is null."""


class RankReading(Strict):
    """One rank of a group.  Provenance: measured."""

    rank: int
    median_s: dict[str, Seconds]
    """By stage, of its own seconds: a sample of the group is the slowest rank's."""
    peak_allocated: int | None
    energy_j: dict[str, float]
    """By stage, of one call, of this rank's card; without the stages that have no reading."""
    in_collectives_s: dict[str, float] | None
    """By stage, of one call: seconds in collectives, waiting for other ranks included."""


class GroupReading(Strict):
    """The ranks that measured a point together."""

    mesh: str
    of_one_sample: Annotated[int, Field(ge=1)]
    """Ranks that worked on one sample: a minute of video costs so many cards' time."""
    ranks: list[RankReading]
    nodes: Annotated[int, Field(ge=1)] = 1
    threads: int
    """Of each rank, on a CPU."""
    reason: str | None
    """Why in_collectives_s is null."""

    @property
    def joules(self) -> dict[str, float]:
        """By stage that every rank has a reading of: all ranks' energy, for one sample."""
        stages = set.intersection(*(set(rank.energy_j) for rank in self.ranks))
        samples = len(self.ranks) / self.of_one_sample
        return {s: sum(rank.energy_j[s] for rank in self.ranks) / samples for s in sorted(stages)}

    def slowest(self, stage: str) -> RankReading:
        """By its median."""
        return max(self.ranks, key=lambda rank: rank.median_s.get(stage, 0.0))


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
    """From the card's total-energy counter over whole, synchronised calls; idle power included.
    Provenance: measured."""

    energy_j: Positive
    """Of one call."""
    power_w: Positive
    """Mean over the window."""
    calls: Annotated[int, Field(ge=1)]
    window_s: Seconds


READINGS = ("sm_clock_hz", "memory_clock_hz", "power_w", "temperature_c")
UTILISATIONS = (
    "dram_util_percent",
    "tensor_util_percent",
    "sm_util_percent",
    "sm_occupancy_percent",
)


class StageTelemetry(Strict):
    """What the card did during one stage, by NVML.  Provenance: measured, but for what is called
    derived."""

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
    """A slowdown by heat, hardware or power brake in more than 5 % of the samples: the timing is
    kept, and marked."""
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
        names = (
            *READINGS,
            "throttle_fractions",
            "energy",
            *UTILISATIONS,
            "dram_bytes_per_s_derived",
        )
        gaps = [name for name in names if getattr(self, name) is None and name not in self.missing]
        if gaps and self.reason is None:
            raise ValueError(f"{', '.join(gaps)}: null, and `missing` does not say why")
        return self
