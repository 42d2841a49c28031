"""From a demand and the seconds of its clips to a fleet: GPUs at the peak and on average, dollars,
kWh, each with its interval.

Each hour of a week has its own load: the requests of the time that a clip takes, which smooths the
curve where clips take hours (the modified offered load of Jennings, Mandelbaum, Massey and Whitt,
1996).  The fleet is the largest that any hour needs for the objective; the average is what a fleet
that grows and shrinks by the hour would need.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, exp, log
from statistics import mean

from bench.core.errors import UserError
from bench.core.quantity import Provenance, Quantity
from bench.core.specs.demand import Demand, Objective
from bench.core.specs.gpu import Gpu
from bench.core.units import SECONDS_PER_HOUR, SECONDS_PER_MINUTE
from bench.studies.fleet.queueing import servers_for, wait_quantile_s

SECONDS_PER_DAY = 86_400.0
HOURS_PER_DAY = 24.0
DRAWS = 400
STEPS = 12
"""Of load, between the quietest and the busiest hour, for which servers are counted."""
MOST_ERLANGS = 1e14
"""Servers that are busy: Erlang's formula has no digits left for a hundred times as many."""
Z90 = 1.6449
"""Of a 90 % interval."""


@dataclass(frozen=True)
class ClipCost:
    """One kind of clip on one kind of server."""

    workload: str
    share: float
    """Of the minutes."""
    video_s: float
    """Seconds of video in one clip."""
    service_s: Quantity
    """From its start to the finished clip, on one server."""


@dataclass(frozen=True)
class Server:
    """What makes one clip at a time: a card, or a mesh of several."""

    gpu: Gpu
    gpus: int
    how: str
    """The mesh and the recipe in words."""
    clips: tuple[ClipCost, ...]
    kwh_per_minute: Quantity | None
    """Of a finished minute, at most: each card at its power limit."""
    provenance: Provenance


@dataclass(frozen=True)
class Numbers:
    """A demand's uncertain numbers at one draw, or at their middle."""

    minutes_per_day: float
    candidates: float
    retries: float
    availability: float
    slowness: float = 1.0
    """Times the predicted seconds."""
    peak: float = 1.0
    """Times how far the curve rises over its mean."""

    @property
    def made(self) -> float:
        """Minutes a day with candidates and retries."""
        return self.minutes_per_day * self.candidates * self.retries


@dataclass(frozen=True)
class Fleet:
    """A fleet that meets the objective, all numbers at their middle."""

    servers: int
    """That the busiest hour needs."""
    mean_servers: float
    gpus: int
    """With those that are down."""
    mean_gpus: float
    utilisation: float
    """Of the GPUs that are up, over the week."""
    busiest_utilisation: float
    """In the busiest hour."""
    latency_s: float
    """That the objective's share of clips stays under in the busiest hour; the service of the
    slowest kind of clip that so many are."""
    wait_s: float
    """The same of the wait for a server."""
    clips_per_day: float
    made_minutes_per_day: float
    """Candidates and retries included."""


@dataclass(frozen=True)
class Plan:
    """A fleet with its intervals (90 %, of the demand's ranges and the prediction's)."""

    demand: Demand
    server: Server
    fleet: Fleet
    gpus: Quantity
    mean_gpus: Quantity
    usd_per_day: Quantity | None
    mwh_per_day: Quantity | None
    usd_per_minute: Quantity | None
    """Of an uploaded minute: candidates, retries, idle and broken GPUs included."""


def middle(demand: Demand) -> Numbers:
    """The demand as it stands."""
    return Numbers(
        demand.minutes_per_day,
        demand.candidates_per_upload.value,
        demand.retries.value,
        demand.availability.value,
    )


def fleet_of(
    demand: Demand, server: Server, numbers: Numbers, objective: Objective | None = None
) -> Fleet:
    """objective: the demand's own by default."""
    wanted = objective or demand.objective
    per_day, seconds, cv2 = load_of(server, numbers)
    erlangs = per_day / SECONDS_PER_DAY * seconds
    if not erlangs <= MOST_ERLANGS:
        raise UserError(
            f"demand {demand.name}: {numbers.minutes_per_day:.3g} minutes a day, candidates and"
            f" retries included {numbers.made:.3g}, keep {erlangs:.3g} servers busy; at most"
            f" {MOST_ERLANGS:g} are planned"
        )
    curve = offered(demand, server, numbers)
    within_s = wait_allowed(server, wanted, numbers)
    grid = [min(curve) + i / STEPS * (max(curve) - min(curve)) for i in range(STEPS + 1)]
    needed = [servers_for(erlangs * x, seconds, cv2, wanted.share, within_s) for x in grid]
    servers, average = needed[-1], mean(_between(x, grid, needed) for x in curve)
    busiest = erlangs * max(curve)
    wait = wait_quantile_s(servers, busiest, seconds, cv2, wanted.share)
    return Fleet(
        servers=servers,
        mean_servers=average,
        gpus=ceil(servers * server.gpus / numbers.availability),
        mean_gpus=average * server.gpus / numbers.availability,
        utilisation=erlangs / servers,
        busiest_utilisation=busiest / servers,
        latency_s=wait + _service_quantile(server, numbers, wanted.share),
        wait_s=wait,
        clips_per_day=per_day,
        made_minutes_per_day=numbers.made,
    )


def _between(x: float, grid: Sequence[float], values: Sequence[float]) -> float:
    """Servers of a load between two of the grid: they are all but straight in it."""
    width = grid[-1] - grid[0]
    if width <= 0:
        return values[-1]
    at = min(int((x - grid[0]) / width * STEPS), STEPS - 1)
    share = (x - grid[at]) / (grid[at + 1] - grid[at])
    return values[at] + share * (values[at + 1] - values[at])


def offered(demand: Demand, server: Server, numbers: Numbers) -> list[float]:
    """Load of each hour of a week over its mean."""
    curve = [1 + numbers.peak * (x - 1) for x in demand.curve]
    work = [clip.share * clip.service_s.value / clip.video_s for clip in server.clips]
    smooth = [
        smoothed(curve, clip.service_s.value * numbers.slowness / SECONDS_PER_HOUR)
        for clip in server.clips
    ]
    return [
        sum(w * s[i] for w, s in zip(work, smooth, strict=True)) / sum(work)
        for i in range(len(curve))
    ]


def smoothed(curve: Sequence[float], hours: float) -> list[float]:
    """Mean of a repeating hourly curve over so many hours before the middle of each of its own."""
    n, total = len(curve), sum(curve)
    sums = [0.0]
    for x in curve:
        sums.append(sums[-1] + x)

    def until(t: float) -> float:
        """Its integral from 0."""
        whole, within = divmod(t, n)
        at = int(within)
        part = (within - at) * curve[at] if at < n else 0.0
        return whole * total + sums[at] + part

    window = max(hours, 1e-3)  # seconds: shorter ones lose digits
    return [(until(i + 0.5) - until(i + 0.5 - window)) / window for i in range(n)]


def load_of(server: Server, numbers: Numbers) -> tuple[float, float, float]:
    """(clips a day, mean seconds of one, squared coefficient of variation)."""
    made = numbers.made
    counts = [made * clip.share * SECONDS_PER_MINUTE / clip.video_s for clip in server.clips]
    total = sum(counts)
    seconds = [clip.service_s.value * numbers.slowness for clip in server.clips]
    average = sum(n * s for n, s in zip(counts, seconds, strict=True)) / total
    square = sum(n * s * s for n, s in zip(counts, seconds, strict=True)) / total
    return total, average, max(square / average**2 - 1, 0.0)


def plan(demand: Demand, server: Server, seed: int = 0) -> Plan:
    """The fleet, and 90 % intervals by drawing each uncertain number from its range."""
    at_middle = middle(demand)
    fleet = fleet_of(demand, server, at_middle)
    drawn = [fleet_of(demand, server, n) for n in draws(demand, server, seed)]
    gpus = _spread(fleet.gpus, [f.gpus for f in drawn])
    price = server.gpu.price_usd_per_hour
    usd = None
    if price is not None:
        usd = gpus.times(Quantity((price.low + price.high) / 2, price.low, price.high)).scaled(
            HOURS_PER_DAY
        )
    made = _spread(fleet.made_minutes_per_day, [f.made_minutes_per_day for f in drawn])
    kwh = server.kwh_per_minute
    return Plan(
        demand=demand,
        server=server,
        fleet=fleet,
        gpus=gpus,
        mean_gpus=_spread(fleet.mean_gpus, [f.mean_gpus for f in drawn]),
        usd_per_day=usd,
        mwh_per_day=None if kwh is None else made.times(kwh).scaled(1e-3),
        usd_per_minute=None if usd is None else usd.scaled(1 / demand.minutes_per_day),
    )


def draws(demand: Demand, server: Server, seed: int) -> list[Numbers]:
    """Each uncertain number by itself, log-normal on either side of its middle."""
    rng = random.Random(seed)
    slowness = slowness_of(server)
    found = []
    for _ in range(DRAWS):
        minutes = sum(
            _draw(p.minutes_per_day.quantity, rng) * min(_draw(p.generated.quantity, rng), 1.0)
            for p in demand.platforms
        )
        found.append(
            Numbers(
                minutes,
                _draw(demand.candidates_per_upload.quantity, rng),
                max(_draw(demand.retries.quantity, rng), 1.0),
                min(_draw(demand.availability.quantity, rng), 1.0),
                _draw(slowness, rng),
            )
        )
    return found


def slowness_of(server: Server) -> Quantity:
    """The prediction's interval over its value, of the mean clip: all kinds are wrong together."""
    total = Quantity.sum(clip.service_s.scaled(clip.share / clip.video_s) for clip in server.clips)
    return total.scaled(1 / total.value)


def _draw(q: Quantity, rng: random.Random) -> float:
    z = rng.gauss(0, 1)
    end = q.high if z > 0 else q.low
    return q.value * exp(abs(z) / Z90 * log(end / q.value)) if end > 0 else q.value


def _spread(value: float, drawn: Sequence[float]) -> Quantity:
    ordered = sorted(drawn)
    low, high = ordered[int(0.05 * len(ordered))], ordered[int(0.95 * len(ordered))]
    return Quantity(value, min(low, value), max(high, value))


def wait_allowed(server: Server, objective: Objective, numbers: Numbers) -> float:
    """Seconds that a clip may wait for a server."""
    allowed = objective.starts_within_s
    if objective.done_within_s is not None:
        service = _service_quantile(server, numbers, objective.share)
        allowed = min(allowed, objective.done_within_s - service)
    return max(allowed, 0.0)


def _service_quantile(server: Server, numbers: Numbers, share: float) -> float:
    """Seconds of service that so large a share of the clips stays under."""
    counts = [(clip.service_s.value, clip.share / clip.video_s) for clip in server.clips]
    total, so_far = sum(n for _, n in counts), 0.0
    for seconds, n in sorted(counts):
        so_far += n
        if so_far >= share * total:
            return seconds * numbers.slowness
    return max(seconds for seconds, _ in counts) * numbers.slowness


def meets(planned: Plan) -> bool:
    """Can the objective be met at all: does a clip take less than it may?"""
    allowed = planned.demand.objective.done_within_s
    return allowed is None or planned.fleet.latency_s <= allowed
