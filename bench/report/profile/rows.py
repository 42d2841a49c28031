"""The rows of a profile: repeated blocks together, what bounds each, and a residual that closes the
sum to the step."""

from collections.abc import Iterable
from dataclasses import dataclass

from bench.results.profile import ModuleSpent, Profile, Rates

SMALL = 0.003  # of the step: rows below it are summed up
NO_BOUND = 0.1  # of what the device reaches: below it neither products nor memory set the time


@dataclass(frozen=True)
class Row:
    """One line of a table: of a module and kind, or a sum of several."""

    name: str
    kind: str
    seconds: float
    calls: float
    flops: int
    bytes_min: int
    bytes_max: int

    def __add__(self, other: "Row") -> "Row":
        return Row(
            self.name,
            self.kind,
            self.seconds + other.seconds,
            self.calls + other.calls,
            self.flops + other.flops,
            self.bytes_min + other.bytes_min,
            self.bytes_max + other.bytes_max,
        )

    def share_of_ceiling(self, rates: Rates) -> float | None:
        """Of the time that products at the GEMM rate, or bytes at the copy rate, would take;
        None of a sum of several, and where nothing
        was counted.  Over 1 where data come from a cache."""
        if not self.kind or self.seconds <= 0 or not (self.flops or self.bytes_min):
            return None
        return max(self._seconds_at(rates)) / self.seconds

    def bound(self, rates: Rates) -> str:
        """compute, memory or overhead: what sets the time."""
        share = self.share_of_ceiling(rates)
        if share is None:
            return ""
        if share < NO_BOUND:
            return "overhead"
        compute, memory = self._seconds_at(rates)
        return "compute" if compute >= memory else "memory"

    def _seconds_at(self, rates: Rates) -> tuple[float, float]:
        return self.flops / rates.gemm_flops_per_s, self.bytes_min / rates.copy_bytes_per_s


def together(module: str) -> str:
    """A module's path without its class, its parts of a list as one: blocks.*.attn."""
    parts = module.split(".")
    return ".".join("*" if part.isdigit() else part for part in parts[1:]) or parts[0]


def module_rows(profile: Profile) -> list[Row]:
    """By module and kind, the longest first; rows of less than SMALL of the step are one."""
    rows = ((together(spent.module) or "in no module", spent) for spent in profile.modules)
    return _large_first(_summed((name, spent.kind, spent) for name, spent in rows), profile.step_s)


def operator_rows(profile: Profile) -> list[Row]:
    """By operator or kernel, the longest first."""
    rows = [Row(o.name, o.kind, o.seconds, o.calls, 0, 0, 0) for o in profile.operators]
    return _large_first(rows, profile.step_s)


def kind_rows(profile: Profile) -> list[Row]:
    """By kind of operator, the longest first."""
    rows = _summed((spent.kind, spent.kind, spent) for spent in profile.modules)
    return sorted(rows, key=lambda row: -row.seconds)


def _summed(named: Iterable[tuple[str, str, ModuleSpent]]) -> Iterable[Row]:
    """Rows of one name and kind together."""
    rows: dict[tuple[str, str], Row] = {}
    for name, kind, spent in named:
        row = Row(
            name,
            kind,
            spent.seconds,
            spent.calls,
            spent.flops or 0,
            spent.bytes_modelled_min or 0,
            spent.bytes_modelled_max or 0,
        )
        known = rows.get((name, kind))
        rows[name, kind] = row if known is None else known + row
    return rows.values()


def _large_first(rows: Iterable[Row], step_s: float) -> list[Row]:
    ordered = sorted(rows, key=lambda row: -row.seconds)
    large = [row for row in ordered if row.seconds >= SMALL * step_s]
    small = [row for row in ordered if row.seconds < SMALL * step_s]
    if not small:
        return large
    rest = Row(f"{len(small)} smaller ones", "", 0.0, 0.0, 0, 0, 0)
    for row in small:
        rest = rest + row
    return [*large, rest]
