"""A suite: which points are measured, in which order and how long."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool

from bench.core.specs.base import MAX_SECONDS, Names, Spec, as_tuple, positive, whole
from bench.core.specs.model import Digest, PartName, Stage
from bench.core.specs.recipe import Dtype
from models.parallel.spec import MAX_RANKS, Parallel

MAX_THREADS = 4096
Dtypes = Annotated[tuple[Dtype, ...], BeforeValidator(as_tuple), Field(min_length=1)]


class SuitePoints(BaseModel):
    """The product of the named models, workloads and recipes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Names
    workload: Names
    recipe: Names
    dtype: Dtypes | None = None
    """Each recipe in each of these; null: in the suite's, or else in the recipe's own."""
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)] = ("denoise_step",)
    together: StrictBool = False
    """Small enough to be resident at once: visited in turns with the entries beside it that say so
    too."""
    parallel: Annotated[tuple[Parallel, ...], BeforeValidator(as_tuple)] | Literal["all"] | None = (
        None
    )
    """Each recipe on each of these meshes; all: on every mesh of the suite's GPUs; null: as the
    recipe says."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Dotted paths to values, as --set takes them."""
    baseline: str | None = None
    """A recipe: each point is measured in turns with the same one under it, and its output held
    against that one's."""


class Headline(BaseModel):
    """The point whose minutes of video per GPU-hour the suite is about."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    workload: str
    recipe: str


class Sampling(BaseModel):
    """When to stop timing.  See `bench.measure.timing.sampling`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    target_relative_half_width: positive(10.0)
    """Of the 95 % confidence interval of the median."""
    min_samples: whole(1_000_000)
    max_samples: whole(1_000_000)
    max_s: positive(MAX_SECONDS)
    """Time for one stage's samples, after warm-up."""


class Shard(BaseModel):
    """One of several shares of a suite's points."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    index: whole(10_000)
    """From 1."""
    count: whole(10_000)


class Suite(Spec):
    """Which points, in which order."""

    ceilings: StrictBool
    """Measure GEMM, attention, convolution, copy and triad first."""
    sampling: Sampling
    point_timeout_s: positive(MAX_SECONDS)
    points: Annotated[tuple[SuitePoints, ...], Field(min_length=1)]
    headline: Headline
    calibrate: StrictBool = True
    """false: many recipes with a point each, which no cost equation can be fitted to."""
    dtype: Dtype | None = None
    """Of every recipe here, baselines and the headline's too, where neither its name nor its entry
    says another."""
    threads: whole(MAX_THREADS) | None = None
    """Of each measuring process on a CPU; null: all cores, which a group's ranks share."""
    gpus: whole(MAX_RANKS) = 1
    """Of the meshes that `parallel: all` stands for; --gpus sets it."""
    shard: Shard | None = None
    """Of a result that holds a share of the points; --shard sets it."""
    weights: dict[str, dict[PartName, Digest]] | None = None
    """By model as the suite names it: SHA-256 of its real weights by part; --weights sets it."""
    on_cpu: str | None = None
    """The suite that is run in the place of this one where the device is a CPU."""
