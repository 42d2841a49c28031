"""Which assumption moves the fleet most?"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from bench.core.specs.demand import Demand, Uncertain
from bench.studies.fleet.plan import Numbers, Server, fleet_of, middle, slowness_of

Pair = tuple[float, float]
RISE = (0.5, 1.5)
"""Of the curve over its mean: how flat or how steep it may be.  Assumed."""


@dataclass(frozen=True)
class Swing:
    """GPUs where one number is at either end of its range and all others at their middle."""

    name: str
    low: float
    high: float
    gpus_at_low: float
    gpus_at_high: float
    source: str

    @property
    def factor(self) -> float:
        """The larger fleet over the smaller."""
        small, large = sorted((self.gpus_at_low, self.gpus_at_high))
        return large / small


def tornado(demand: Demand, server: Server) -> list[Swing]:
    """Each number at the ends of its range, the one that moves the fleet most first."""
    return sorted(_swings(demand, server), key=lambda swing: -swing.factor)


def _swings(demand: Demand, server: Server) -> Iterator[Swing]:
    at = middle(demand)

    def swing(name: str, low: float, high: float, source: str, **ends: Pair) -> Swing:
        gpus = []
        for end in (0, 1):
            changed = {field: pair[end] for field, pair in ends.items()}
            gpus.append(fleet_of(demand, server, replace(at, **changed)).gpus)
        return Swing(name, low, high, *gpus, source)

    def of(name: str, number: Uncertain, field: str) -> Swing:
        return swing(name, number.low, number.high, number.source, **_ends(field, number))

    yield of("candidates an upload", demand.candidates_per_upload, "candidates")
    yield of("clips made over clips that come out", demand.retries, "retries")
    yield of("share of GPUs that are up", demand.availability, "availability")
    slow = slowness_of(server)
    said = f"{server.provenance}, its 90 % interval"
    yield swing("seconds of a clip", slow.low, slow.high, said, slowness=(slow.low, slow.high))
    yield swing("the day's curve over its mean", *RISE, "assumed", peak=RISE)
    for platform in demand.platforms:
        yield from _of_platform(demand, at, platform.name, swing)


def _ends(field: str, number: Uncertain) -> dict[str, tuple[float, float]]:
    return {field: (number.low, number.high)}


def _of_platform(demand: Demand, at: Numbers, name: str, swing: object) -> Iterator[Swing]:
    platform = next(p for p in demand.platforms if p.name == name)
    own = platform.minutes_per_day.value * platform.generated.value
    others = at.minutes_per_day - own
    for what, number, other in (
        ("minutes a day", platform.minutes_per_day, platform.generated.value),
        ("share that is generated", platform.generated, platform.minutes_per_day.value),
    ):
        ends = others + number.low * other, others + number.high * other
        yield swing(  # type: ignore[operator]
            f"{name}: {what}", number.low, number.high, number.source, minutes_per_day=ends
        )
