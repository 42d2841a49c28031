"""What one call of a stage does, as counted: FLOPs, bytes and operators; and its sums by class."""

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Literal

from pydantic import model_validator

from bench.results.base import Strict, Work

OperatorKind = Literal["linear", "attention", "conv", "small_conv", "other", "activation", "memory"]


class Operators(Strict):
    """A stage's operators that touch memory, column by column, equal ones in one row.  Provenance:
    counted.

    What the cost model prices one by one: a small product runs at another rate than a large one."""

    kind: list[OperatorKind]
    """small_conv: one that PyTorch hands to its im2col kernel on a CPU.  other: a product of
    another sort.  activation: a transcendental function of each element.  memory: norms, copies and
    the rest of what holds no product."""
    m: list[Work]
    """Rows of a product; queries of attention; output positions of a convolution.  0 without a
    product."""
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
        return Counter(
            {row[:-1]: row[-1] for row in zip(*(column for _, column in self), strict=True)}
        )

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
    """Modelled peak of the tensors alive during the stage, beside weights and inputs
    (bench.count.memory)."""
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


@dataclass(frozen=True)
class ClassWork:
    """Work by operator class; adds over stages and multiplies by how often one runs."""

    linear_flops: int = 0
    attention_flops: int = 0
    conv_flops: int = 0
    elementwise_bytes: int = 0
    """Modelled bytes of the operators without products."""
    kernels: int = 0

    def __add__(self, other: "ClassWork") -> "ClassWork":
        return ClassWork(
            **{name: value + getattr(other, name) for name, value in asdict(self).items()}
        )

    def __sub__(self, other: "ClassWork") -> "ClassWork":
        return self + other * -1

    def __mul__(self, times: float) -> "ClassWork":
        return ClassWork(**{name: value * times for name, value in asdict(self).items()})

    @property
    def flops(self) -> int:
        """Products and convolutions; 1 MAC = 2 FLOPs."""
        return self.linear_flops + self.attention_flops + self.conv_flops
