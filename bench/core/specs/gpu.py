"""A GPU: its datasheet, price and usual rates."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bench.core.specs.base import Spec, positive, whole


class Price(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    low: positive(1e6)
    high: positive(1e6)
    date: str
    source: str


class UsualRate(BaseModel):
    """What cards of this model were published to reach: the range of the published figures."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    low: positive(1e24)
    high: positive(1e24)
    source: str

    @model_validator(mode="after")
    def _a_range(self) -> "UsualRate":
        if self.low > self.high:
            raise ValueError(f"low {self.low:g} is over high {self.high:g}")
        return self


class Link(BaseModel):
    """How cards of one node reach one another."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["nvlink", "pcie"]
    bytes_per_s: positive(1e15)
    """Of one card, in one direction."""
    cards: whole(100_000)
    """That reach one another so: of a node, or of an NVLink domain."""
    source: str


Architecture = Literal["ampere", "ada", "hopper", "blackwell", "blackwell-rtx"]


class Gpu(Spec):
    """A card's datasheet.  null where nothing is published."""

    architecture: Architecture | None = None
    """Cards of one architecture run the same kernels, so that what was published of one says
    something of its siblings; null for what has none here, as a CPU."""
    device_names: tuple[str, ...]
    """Exact names as CUDA reports them; an unlisted device is unknown, never guessed."""
    peak_flops_per_s: dict[Literal["fp32", "tf32", "bf16", "fp16", "fp8"], positive(1e24)]
    """Dense, by dtype; 1 multiply-accumulate = 2 FLOPs."""
    memory_bytes: whole(10**18) | None
    bandwidth_bytes_per_s: positive(1e18) | None
    tdp_w: positive(1e6) | None
    price_usd_per_hour: Price | None
    source: str
    link: Link | None = None
    """null: not known here, so that nothing can be said of several cards."""
    usual: dict[Literal["gemm_bf16_flops_per_s", "copy_bytes_per_s"], UsualRate] = Field(
        default_factory=dict
    )
    """Achieved, not datasheet: what `ldt-bench doctor` holds a card against.  Empty where nothing
    is published."""

    @property
    def watts_per_tflops(self) -> float:
        """Power limit over the bf16 rate, W a TFLOP/s.  Both must be known."""
        assert self.tdp_w is not None
        return self.tdp_w / (self.peak_flops_per_s["bf16"] / 1e12)
