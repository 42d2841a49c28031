"""A published claim as validated data: what was printed, by whom, and how it is checked.  One YAML,
one claim or one table of claims; no torch.  `bench.studies.claims.ledger` holds them against counts
and a calibration.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, model_validator

from bench.core.specs.base import Spec, positive
from bench.core.specs.workload import Task

TOLERANCE = 0.10
"""How far from the printed figure ours may lie to hold.  Sources round (the pencil chain by up to 3
%), and sessions on one kind of card differ by about 5 % in public data: twice that, so that neither
alone makes a claim fail."""


class Part(BaseModel):
    """A frozen part of a claim; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Claimed(Part):
    """The figure as printed: a value, or a range with one end or both."""

    unit: str
    value: positive(1e40) | None = None
    low: positive(1e40) | None = None
    high: positive(1e40) | None = None

    @model_validator(mode="after")
    def _value_or_range(self) -> "Claimed":
        ends = [end for end in (self.low, self.high) if end is not None]
        if (self.value is None) == (not ends):
            raise ValueError(
                "either value, or low and high (one of them where the claim is `at least` or `at"
                " most`)"
            )
        if len(ends) == 2 and ends[0] > ends[1]:
            raise ValueError(f"low {ends[0]:g} is over high {ends[1]:g}")
        return self


class Subject(Part):
    """What is run.  Without a recipe, the calibration's own."""

    model: str
    workload: str
    recipe: str | None = None
    set: dict[str, Any] = Field(default_factory=dict)
    """Dotted paths to values, as --set takes them."""


class Tokens(Part):
    """A language model by the usual rule: FLOPs = 2 x parameters x tokens."""

    params: positive(1e16)
    """Active parameters."""
    tokens: positive(1e12)


class ChainCheck(Part):
    """Rows of the pencil chain (`bench.studies.pencil.analytic`), claimed as printed there: each
    becomes a claim of its own.

    A quantity is named by its row's id and text.  What needs time on the card is bounded by
    counting: at 100 % of the datasheet there is no more video, and no fewer GPUs, than `at_most`
    and `at_least` say."""

    kind: Literal["chain"]
    rows: Annotated[tuple[str, ...], Field(min_length=1)]
    """Ids, A1 to A17."""
    gpu: str
    """Whose calibration judges the rows that need time."""
    inputs: tuple[str, ...] = ()
    """Quantities that the source puts in by hand: nothing here bears on them."""
    at_most: tuple[str, ...] = ()
    at_least: tuple[str, ...] = ()


class CountCheck(Part):
    """FLOPs or parameters of a model at a workload.  Needs no calibration."""

    kind: Literal["count"]
    quantity: Literal[
        "params", "forward_macs", "forward_flops", "step_flops", "denoise_flops", "video_flops"
    ]
    """params of the denoiser; denoise_flops: all steps; video_flops: with decode and text."""
    subject: Subject


class CompareCountsCheck(Part):
    """FLOPs of a whole video (its denoising steps) over those of a document."""

    kind: Literal["compare_counts"]
    subject: Subject
    against: Tokens


class CostCheck(Part):
    """Dollars for a minute of video at the card's price range."""

    kind: Literal["cost_per_minute"]
    subject: Subject
    gpu: str


class UtilisationCheck(Part):
    """FLOP/s of a denoising step over the card's dense datasheet rate of its dtype."""

    kind: Literal["utilisation"]
    subject: Subject
    gpu: str


class SpeedupCheck(Part):
    """Time of `before` over time of `after`, whole videos on one card."""

    kind: Literal["speedup"]
    before: Subject
    after: Subject
    gpu: str


class LatencyCheck(Part):
    """Seconds on one card."""

    kind: Literal["latency"]
    subject: Subject
    gpu: str
    scope: Literal["step", "denoise", "denoise_and_decode", "video"] = "video"
    """video: all steps, decode and text."""


class LatencyTableCheck(Part):
    """A CSV of published latencies, a claim a row; the words of its columns are mapped here, in the
    open."""

    kind: Literal["latency_table"]
    table: str
    """From this file's own folder; for presets from configs/."""
    models: dict[str, str]
    gpus: dict[str, str]
    """A GPU that is not here keeps its printed name, and nobody's calibration judges it."""
    dtypes: dict[str, Literal["fp32", "bf16", "fp16", "fp8"]]
    compiled: dict[str, StrictBool]
    scopes: dict[str, Literal["step", "denoise", "denoise_and_decode", "video"]]
    tasks: dict[str, Task]
    grades: Annotated[tuple[str, ...], Field(min_length=1)]
    unknown: tuple[str, ...] = ()
    """A row whose note has one of these words does not know all its conditions, and is left out."""


Check = Annotated[
    ChainCheck
    | CountCheck
    | CompareCountsCheck
    | CostCheck
    | UtilisationCheck
    | SpeedupCheck
    | LatencyCheck
    | LatencyTableCheck,
    Field(discriminator="kind"),
]
CHECKS = (
    "chain",
    "count",
    "compare_counts",
    "cost_per_minute",
    "utilisation",
    "speedup",
    "latency",
    "latency_table",
)
TABLES = ("chain", "latency_table")  # which print their own figures


class Claim(Spec):
    """One published claim, or a table of them."""

    statement: str
    """As printed."""
    source: str
    claimed: Claimed | None = None
    """None for tables."""
    check: Check
    tolerance: positive(10.0) = TOLERANCE
    """What counts as near: the whole of our interval within the claimed figure divided and
    multiplied by 1 + this."""
    quality: str | None = None
    """What the claim says of the picture ("without visible loss"): with random weights it can never
    be found to hold."""
    note: str | None = None
    """How this project reads the claim."""
    of_recipes: str | None = None
    """Name under which the claim, of optimised serving as a whole, is held against the fastest
    recipe of an ablation too; null: it is not."""

    @model_validator(mode="after")
    def _figures_from_one_place(self) -> "Claim":
        table = self.check.kind in TABLES
        if table == (self.claimed is not None):
            raise ValueError(
                f"claimed: a check of kind {self.check.kind} "
                f"{'prints its own figures' if table else 'needs the claimed figure'}"
            )
        return self
