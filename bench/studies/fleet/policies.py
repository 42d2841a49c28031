"""Ways to run a fleet, each with what a minute costs and how long clips take."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

from bench.core.specs.demand import Demand
from bench.studies.fleet.plan import (
    HOURS_PER_DAY,
    SECONDS_PER_DAY,
    ClipCost,
    Server,
    fleet_of,
    load_of,
    middle,
    offered,
    wait_allowed,
)
from bench.studies.fleet.queueing import servers_for, wait_quantile_s
from bench.studies.fleet.simulate import Draw, Kind, simulate

SPARE = (0.1, 0.25)
"""Of the servers, beyond what the objective needs."""
DEFERRED = 0.3
"""Share of the clips that may wait for the night.  Assumed."""
SIMULATED, WARM_UP = 30_000, 5_000
LARGEST = 300
"""Servers that are simulated: a larger fleet is simulated at a part of its size."""


@dataclass(frozen=True)
class Outcome:
    """A policy's fleet."""

    name: str
    how: str
    gpus: int
    usd_per_minute: float | None
    """Of an uploaded minute, at the middle of the price range."""
    latency_s: float
    """That the objective's share of the clips stays under, in the busiest hour."""
    by: str
    """theory or simulated."""
    of_all: bool = True
    """Its latency is of all clips, not of one kind."""
    on_front: bool = False
    """No other of all clips is both cheaper and faster."""


@dataclass(frozen=True)
class Check:
    """The busiest hour simulated, beside theory.  Seconds that a share of the waits stays under."""

    share: float
    servers: int
    """Of the simulated fleet."""
    scale: float
    """Its size over the real one's."""
    simulated_s: float
    theory_s: float
    """At the simulated size."""
    more_servers: float
    """That a clip takes in the small fleet, over the whole one: the error of the scaling."""
    utilisation: float
    requests: int


def compare(
    demand: Demand, servers: Sequence[Server], batches: Sequence[Server] = ()
) -> list[Outcome]:
    """All policies.  servers: single cards first, then meshes; batches: single cards that make
    several clips at once."""
    found = [outcome for server in servers for outcome in _sizes(demand, server)]
    found += [_batched(demand, server) for server in batches]
    found.append(_deferred(demand, servers[0]))
    found += _priority(demand, servers[0])
    return [replace(o, on_front=_on_front(o, found)) for o in found]


def _sizes(demand: Demand, server: Server) -> list[Outcome]:
    """As large as the objective needs, and with spare capacity."""
    fleet = fleet_of(demand, server, middle(demand))
    found = [_outcome(demand, server, "first in, first out", fleet.servers)]
    for spare in SPARE:
        more = ceil(fleet.servers * (1 + spare))
        found.append(_outcome(demand, server, f"with {spare:.0%} spare", more))
    return found


def _outcome(
    demand: Demand, server: Server, name: str, servers: int, latency_s: float | None = None
) -> Outcome:
    latency = latency_s
    if latency is None:
        latency = _service(demand, server) + _wait(demand, server, servers)
    gpus = ceil(servers * server.gpus / demand.availability.value)
    return Outcome(name, server.how, gpus, _usd(demand, server, gpus), latency, "theory")


def _wait(demand: Demand, server: Server, servers: int) -> float:
    erlangs, seconds, cv2 = _busiest(demand, server)
    return wait_quantile_s(servers, erlangs, seconds, cv2, demand.objective.share)


def _service(demand: Demand, server: Server) -> float:
    fleet = fleet_of(demand, server, middle(demand))
    return fleet.latency_s - fleet.wait_s


def _busiest(demand: Demand, server: Server) -> tuple[float, float, float]:
    """(erlangs, mean seconds, cv^2) of the busiest hour."""
    per_day, seconds, cv2 = load_of(server, middle(demand))
    most = max(offered(demand, server, middle(demand)))
    return per_day / SECONDS_PER_DAY * seconds * most, seconds, cv2


def _batched(demand: Demand, server: Server) -> Outcome:
    """A server takes clips of one kind together.  Where they wait for one another is left out: at
    many requests a second that is short."""
    fleet = fleet_of(demand, server, middle(demand))
    return _outcome(demand, server, "batches of one kind", fleet.servers)


def _deferred(demand: Demand, server: Server) -> Outcome:
    """A part of the clips is made when others sleep: it fills the valleys of the curve."""
    per_day, seconds, cv2 = load_of(server, middle(demand))
    average = per_day / SECONDS_PER_DAY * seconds
    at_once = [(1 - DEFERRED) * x for x in offered(demand, server, middle(demand))]
    level = _filled(at_once, DEFERRED)
    busiest, share = average * max(at_once), demand.objective.share
    needed = servers_for(busiest, seconds, cv2, share, _allowed(demand, server))
    servers = max(needed, ceil(average * level))
    latency = _service(demand, server) + wait_quantile_s(servers, busiest, seconds, cv2, share)
    name = f"{DEFERRED:.0%} at night: the other clips"
    return replace(_outcome(demand, server, name, servers, latency), of_all=False)


def _allowed(demand: Demand, server: Server) -> float:
    """Seconds that a clip may wait."""
    return wait_allowed(server, demand.objective, middle(demand))


def _filled(curve: Sequence[float], amount: float) -> float:
    """The level to which an amount a hour, of the mean, fills a curve's valleys."""
    low, high = min(curve), max(max(curve), 1.0) + amount
    for _ in range(60):
        level = (low + high) / 2
        filled = sum(max(level - x, 0.0) for x in curve) / len(curve)
        low, high = (level, high) if filled < amount else (low, level)
    return high


def _priority(demand: Demand, server: Server) -> list[Outcome]:
    """Short clips first, simulated; nothing where all clips are alike."""
    if len(server.clips) < 2:
        return []
    size, scale = _part(demand, server)
    kinds = _kinds(server)
    short = min(range(len(kinds)), key=lambda i: server.clips[i].service_s.value)
    first = [replace(k, priority=0 if i == short else 1) for i, k in enumerate(kinds)]
    run = simulate(first, size, _per_s(demand, server) * scale, SIMULATED, seed=0)
    outcomes = []
    whole = fleet_of(demand, server, middle(demand))
    for name, chosen in (("short first: short clips", True), ("short first: long clips", False)):
        of_kind = [d.latency_s for d in run.after(WARM_UP) if (d.kind == short) == chosen]
        latency = quantile_of(of_kind, demand.objective.share)
        outcomes.append(
            replace(
                _outcome(demand, server, name, whole.servers, latency), by="simulated", of_all=False
            )
        )
    return outcomes


def check(demand: Demand, server: Server, seed: int = 0) -> Check:
    """The busiest hour, at a part of its size where it is large."""
    fleet = fleet_of(demand, server, middle(demand))
    servers, scale = _part(demand, server)
    erlangs, seconds, cv2 = _busiest(demand, server)
    share = demand.objective.share
    run = simulate(_kinds(server), servers, _per_s(demand, server) * scale, SIMULATED, seed)
    waits = [d.wait_s for d in run.after(WARM_UP)]
    return Check(
        share=share,
        servers=servers,
        scale=scale,
        simulated_s=quantile_of(waits, share),
        theory_s=wait_quantile_s(servers, erlangs * scale, seconds, cv2, share),
        more_servers=servers / (fleet.servers * scale) - 1,
        utilisation=run.utilisation,
        requests=len(run.done),
    )


def _part(demand: Demand, server: Server) -> tuple[int, float]:
    """(servers to simulate, the share of the load that they get): as many as that load needs for
    the objective.  A part of a large fleet, with its share of the load alone, would be too small:
    what a pool saves grows with its size."""
    fleet = fleet_of(demand, server, middle(demand))
    scale = min(1.0, LARGEST / fleet.servers)
    if scale == 1.0:
        return fleet.servers, 1.0
    erlangs, seconds, cv2 = _busiest(demand, server)
    share = demand.objective.share
    return servers_for(erlangs * scale, seconds, cv2, share, _allowed(demand, server)), scale


def _per_s(demand: Demand, server: Server) -> float:
    erlangs, seconds, _ = _busiest(demand, server)
    return erlangs / seconds


def _kinds(server: Server) -> list[Kind]:
    """Requests by kind of clip; each takes the same seconds every time."""
    requests = [clip.share / clip.video_s for clip in server.clips]
    return [
        Kind(clip.workload, n / sum(requests), _always(clip))
        for clip, n in zip(server.clips, requests, strict=True)
    ]


def _always(clip: ClipCost) -> Draw:
    seconds = clip.service_s.value

    def service(rng: random.Random) -> float:
        return seconds

    return service


def quantile_of(values: Sequence[float], share: float) -> float:
    """0 where there are none."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0


def _usd(demand: Demand, server: Server, gpus: int) -> float | None:
    price = server.gpu.price_usd_per_hour
    if price is None:
        return None
    per_day = gpus * HOURS_PER_DAY * (price.low + price.high) / 2
    return per_day / demand.minutes_per_day


def _on_front(outcome: Outcome, others: Sequence[Outcome]) -> bool:
    def better(o: Outcome) -> bool:
        cheaper = o.gpus <= outcome.gpus and o.latency_s <= outcome.latency_s
        return cheaper and (o.gpus, o.latency_s) != (outcome.gpus, outcome.latency_s)

    return outcome.of_all and not any(better(o) for o in others if o.of_all)
