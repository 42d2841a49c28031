"""Where one call of a stage spends its time.  Written as profile.json; every time is measured,
every count counted."""

from typing import Annotated, Literal

from pydantic import Field

from bench.results.base import Positive, Seconds, Strict
from bench.results.environment import Environment

Kind = Literal["linear", "attention", "conv", "other", "norm", "memory"]
NonNegative = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=0)]


class Spent(Strict):
    """Time and work of one call of the stage, in a module or an operator."""

    seconds: NonNegative
    calls: NonNegative
    """Of operators, in one call of the stage: a mean over the profiled calls."""
    flops: Count | None
    """Counted on meta; null where the profile cannot be laid beside the count (compiled code)."""
    bytes_modelled_min: Count | None
    bytes_modelled_max: Count | None
    """Each operator run alone, reading and writing its tensors."""


class ModuleSpent(Spent):
    """What ran in a module, its children left out."""

    module: str
    """Dotted path from the root's class name."""
    kind: Kind


class OperatorSpent(Strict):
    """An operator, or on CUDA a kernel, wherever it ran."""

    name: str
    kind: Kind
    seconds: NonNegative
    calls: NonNegative


class Rates(Strict):
    """What this device reaches at best, measured in a second beside the profile."""

    gemm_flops_per_s: Positive
    copy_bytes_per_s: Positive


class Profile(Strict):
    """One stage of one point."""

    schema_version: Literal[1] = 1
    model: str
    workload: str
    recipe: str
    stage: str
    environment: Environment
    weights: Literal["random", "real"]
    step_s: Seconds
    """Median of calls without the profiler, in turns with the profiled ones."""
    profiled_s: Seconds
    """Mean of the profiled calls."""
    calls: Annotated[int, Field(ge=1)]
    """Profiled."""
    flops: Count
    """Of one call, counted on meta."""
    modules: list[ModuleSpent]
    operators: list[OperatorSpent]
    rates: Rates
    compiled: bool
    """The recipe compiles: what runs in compiled code belongs to the nearest module outside it."""

    @property
    def in_operators_s(self) -> float:
        return sum(row.seconds for row in self.modules)

    @property
    def residual_s(self) -> float:
        """The step less all operators: Python, dispatch, launches, and on CUDA an idle device.
        Below 0 where the profiler slowed the operators by more than that."""
        return self.step_s - self.in_operators_s
