"""What differs between a baseline and what is counted now."""

from collections.abc import Iterator
from dataclasses import dataclass

from bench.core.errors import UserError
from bench.studies.gate.baseline import Baseline, BaselinePoint


@dataclass(frozen=True)
class Change:
    """One number that is not the baseline's.  Provenance: counted."""

    point: str
    what: str
    """A stage's quantity, a part's parameters, or the point itself."""
    before: int | None
    now: int | None
    """None: it was not there, or is not any more."""
    reason: str = ""

    @property
    def share(self) -> float | None:
        """Of the baseline's; None without one."""
        if not self.before or self.now is None:
            return None
        return self.now / self.before - 1

    @property
    def words(self) -> str:
        """E.g. "FLOPs +87 %"."""
        if self.reason:
            return self.reason
        if self.share is None:
            return "is new" if self.before is None else "is gone" if self.now is None else "was 0"
        return f"{self.share:+.3g}" if abs(self.share) < 1e-4 else f"{self.share:+.2%}"


def changes(baseline: Baseline) -> list[Change]:
    """Everything that is not exactly the baseline's, point by point."""
    return [change for point in baseline.points for change in _of_point(point)]


def _of_point(before: BaselinePoint) -> Iterator[Change]:
    try:
        now = before.now()
    except UserError as error:
        yield Change(before.label, "the point", None, None, str(error))
        return
    yield from _unequal(before.label, "parameters of ", before.params, now.params)
    for stage in dict.fromkeys([*before.stages, *now.stages]):
        was, has = before.stages.get(stage, {}), now.stages.get(stage, {})
        total = _flops(was), _flops(has)
        if total[0] != total[1]:
            yield Change(before.label, f"{stage}: FLOPs", *total)
        yield from _unequal(before.label, f"{stage}: ", was, has)


def _unequal(
    label: str, what: str, before: dict[str, int], now: dict[str, int]
) -> Iterator[Change]:
    for name in dict.fromkeys([*before, *now]):
        if before.get(name) != now.get(name):
            words = name.replace("_flops", " FLOPs").replace("_", " ")
            yield Change(label, f"{what}{words}", before.get(name), now.get(name))


def _flops(stage: dict[str, int]) -> int:
    return sum(value for name, value in stage.items() if name.endswith("_flops"))
