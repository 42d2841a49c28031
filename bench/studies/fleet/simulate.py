"""A fleet of servers and its queue as a simulation of discrete events, by SimPy.

A server is a card, or a mesh of several that makes one clip at a time.  Requests come by a Poisson
process whose rate may follow the hour of a week.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.core.units import SECONDS_PER_HOUR

Draw = Callable[[random.Random], float]
"""Seconds of one request's service."""


@dataclass(frozen=True)
class Kind:
    """A kind of request."""

    name: str
    share: float
    """Of the requests."""
    service_s: Draw
    priority: int = 0
    """The lower, the sooner it is served; equals in order of arrival."""


@dataclass(frozen=True)
class Done:
    """One request."""

    kind: int
    arrival_s: float
    start_s: float
    finish_s: float

    @property
    def wait_s(self) -> float:
        return self.start_s - self.arrival_s

    @property
    def latency_s(self) -> float:
        return self.finish_s - self.arrival_s


@dataclass
class Run:
    """What became of the requests, in the order they finished."""

    servers: int
    done: list[Done] = field(default_factory=list)
    arrived: int = 0

    def after(self, warm_up: int) -> list[Done]:
        """Without the first, which met an empty fleet."""
        return sorted(self.done, key=lambda d: d.arrival_s)[warm_up:]

    @property
    def utilisation(self) -> float:
        """Busy server-seconds over those from the first arrival to the last."""
        first, last = (f(d.arrival_s for d in self.done) for f in (min, max))
        inside = (max(0.0, min(d.finish_s, last) - max(d.start_s, first)) for d in self.done)
        return sum(inside) / (self.servers * (last - first))


def simulate(
    kinds: Sequence[Kind],
    servers: int,
    per_s: float,
    requests: int,
    seed: int,
    curve: Sequence[float] = (1.0,),
) -> Run:
    """Serve so many requests, all to the end.  per_s: mean arrivals a second; curve: the rate of
    each hour over that mean, again and again."""
    import simpy

    rng, env, run = random.Random(seed), simpy.Environment(), Run(servers)
    fleet = simpy.PriorityResource(env, capacity=servers)
    shares, peak = [kind.share for kind in kinds], max(curve)

    def request(kind: int) -> Any:
        arrival = env.now
        with fleet.request(priority=kinds[kind].priority) as granted:
            yield granted
            start = env.now
            yield env.timeout(kinds[kind].service_s(rng))
        run.done.append(Done(kind, arrival, start, env.now))

    def crowd() -> Any:
        while run.arrived < requests:
            yield env.timeout(rng.expovariate(per_s * peak))
            hour = int(env.now / SECONDS_PER_HOUR) % len(curve)
            if rng.random() * peak <= curve[hour]:  # thinning: Lewis and Shedler 1979
                run.arrived += 1
                env.process(request(rng.choices(range(len(kinds)), shares)[0]))

    env.process(crowd())
    env.run()
    return run
