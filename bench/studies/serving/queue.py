"""A queue of requests of mixed shapes before one device, by discrete events.  Pure: any step times
will do, no torch.

Requests arrive by a Poisson process.  A policy says who runs together, and whether a request may
join between two steps of those that run (continuous batching; Orca, OSDI 2022) or when all of them
are done.  Admission is first in, first out: nobody is overtaken, but by requests of the shape that
runs where a batch must be of one shape, and then the oldest shape is next.

The device does one thing at a time: a step of the requests that run together, or, when one has made
all its steps, the work beside them (text encoding, VAE decode), which the others wait for.
"""

import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import ceil

from bench.measure.timing.sampling import quantile

Composition = tuple[int, ...]
"""Requests of each shape that take a step together."""
StepSeconds = Callable[[Composition], float]


@dataclass(frozen=True)
class Shape:
    """What a request of one workload takes."""

    name: str
    tokens: int
    steps: int
    beside_s: float
    """Text encoding and VAE decode."""
    video_s: float
    """Seconds of video that come out."""


@dataclass(frozen=True)
class Policy:
    """Who runs together."""

    name: str
    max_requests: int
    token_budget: int | None
    """Tokens in a step, all requests together; one that is larger by itself runs alone."""
    one_shape: bool
    """A batch of equal shapes alone."""
    joins: str
    """batches: when all that run are done; steps: between any two steps."""
    max_wait_s: float
    """That an idle device lets its oldest request wait for others."""

    def __post_init__(self) -> None:
        if self.joins not in ("batches", "steps"):
            raise ValueError(f"joins {self.joins!r} is not one of batches, steps")
        if self.max_requests < 1 or self.max_wait_s < 0:
            raise ValueError(
                f"max_requests {self.max_requests}, max_wait_s {self.max_wait_s}: at least 1 and 0"
            )


@dataclass
class Request:
    """One video asked for."""

    number: int
    shape: int
    arrival_s: float
    left: int = 0
    """Steps still to make."""
    start_s: float = -1.0
    """When its first step began."""
    finish_s: float = -1.0


@dataclass
class Served:
    """What became of a trace."""

    requests: list[Request]
    """In the order they finished."""
    busy_s: float
    steps: Counter = field(default_factory=Counter)
    """Steps made, by composition."""

    @property
    def makespan_s(self) -> float:
        return max(r.finish_s for r in self.requests) - min(r.arrival_s for r in self.requests)

    @property
    def utilisation(self) -> float:
        return self.busy_s / self.makespan_s

    @property
    def mean_batch(self) -> float:
        """Requests a step, over the steps."""
        return sum(sum(c) * n for c, n in self.steps.items()) / sum(self.steps.values())

    def latency_s(self, share: float) -> float:
        """Quantile of the time from arrival to the finished video."""
        return quantile(sorted(r.finish_s - r.arrival_s for r in self.requests), share)


def trace(count: int, shares: Sequence[float], seed: int) -> list[tuple[float, int]]:
    """(arrival, shape) of `count` requests at one a second on average: divide by a rate for
    another, so that all rates see the same crowd."""
    rng, now, out = random.Random(seed), 0.0, []
    for _ in range(count):
        now += rng.expovariate(1.0)
        out.append((now, rng.choices(range(len(shares)), shares)[0]))
    return out


def simulate(
    arrivals: Sequence[tuple[float, int]],
    shapes: Sequence[Shape],
    policy: Policy,
    step_s: StepSeconds,
) -> Served:
    """Serve every arrival (time, index into shapes), in order of time."""
    coming = deque(
        Request(i, shape, at, shapes[shape].steps) for i, (at, shape) in enumerate(arrivals)
    )
    waiting: deque[Request] = deque()
    running: list[Request] = []
    done, now = Served([], 0.0), 0.0
    while coming or waiting or running:
        while coming and coming[0].arrival_s <= now:
            waiting.append(coming.popleft())
        if not running or policy.joins == "steps":
            chosen = _admit(waiting, running, shapes, policy)
            if chosen and not running and not _start(chosen, waiting, coming, policy, now):
                now = min(
                    chosen[0].arrival_s + policy.max_wait_s,
                    coming[0].arrival_s if coming else float("inf"),
                )
                continue
            for request in chosen:
                waiting.remove(request)
                request.start_s = now
            running += chosen
        if not running:
            now = coming[0].arrival_s
            continue
        composition = _composition(running, len(shapes))
        seconds, steps = step_s(composition), min(r.left for r in running)
        if (
            policy.joins == "steps" and coming
        ):  # the next one may join after the step that it arrives in
            steps = min(steps, max(1, ceil((coming[0].arrival_s - now) / seconds)))
        now += steps * seconds
        done.busy_s += steps * seconds
        done.steps[composition] += steps
        for request in running:
            request.left -= steps
        for request in [r for r in running if r.left == 0]:
            now += shapes[request.shape].beside_s
            done.busy_s += shapes[request.shape].beside_s
            request.finish_s = now
            done.requests.append(request)
        running = [r for r in running if r.left]
    return done


def saturation(
    arrivals: Sequence[tuple[float, int]],
    shapes: Sequence[Shape],
    policy: Policy,
    step_s: StepSeconds,
) -> Served:
    """The same requests, all there from the start: the most that a policy can serve."""
    return simulate([(0.0, shape) for _, shape in arrivals], shapes, policy, step_s)


def _admit(
    waiting: deque[Request], running: list[Request], shapes: Sequence[Shape], policy: Policy
) -> list[Request]:
    """Who of the waiting could join those that run, oldest first."""
    chosen: list[Request] = []
    tokens, crowd = sum(shapes[r.shape].tokens for r in running), len(running)
    of_shape = running[0].shape if running else waiting[0].shape if waiting else None
    for request in waiting:
        if crowd + len(chosen) >= policy.max_requests:
            break
        if policy.one_shape and request.shape != of_shape:
            if policy.joins == "steps":  # else a crowd of one shape would run for ever
                break
            continue
        tokens += shapes[request.shape].tokens
        if policy.token_budget is not None and tokens > policy.token_budget and (running or chosen):
            break
        chosen.append(request)
    return chosen


def _start(
    chosen: list[Request],
    waiting: deque[Request],
    coming: deque[Request],
    policy: Policy,
    now: float,
) -> bool:
    """Does an idle device begin?  Once nobody more could come along, or the oldest has waited long
    enough."""
    blocked = not policy.one_shape and len(chosen) < len(waiting)
    full = len(chosen) == policy.max_requests or blocked
    return full or not coming or now >= chosen[0].arrival_s + policy.max_wait_s


def _composition(running: list[Request], shapes: int) -> Composition:
    counts = [0] * shapes
    for request in running:
        counts[request.shape] += 1
    return tuple(counts)


SATURATED = (
    0.98  # of what a policy can serve at most: beyond, its queue grows for as long as requests come
)
LOADS = (0.1, 0.25, 0.4, 0.55, 0.7, 0.8, 0.9, 0.95)  # of the best policy's most
OWN_LOADS = (0.5, 0.8, 0.95)  # of each policy's own, so that a slow one has a curve too
TELLS_APART = 1.05  # rates that are closer show the same


@dataclass(frozen=True)
class Load:
    """One policy at one arrival rate."""

    arrivals_per_s: float
    saturated: bool
    """Latencies are then those of a queue that grows, and mean nothing."""
    served: Served


@dataclass(frozen=True)
class Sweep:
    """One policy from idle to saturation."""

    policy: Policy
    saturation: Served
    loads: list[Load]

    @property
    def most_per_s(self) -> float:
        """Requests a second that it can serve."""
        return len(self.saturation.requests) / self.saturation.makespan_s


def sweep(
    crowd: Sequence[tuple[float, int]],
    shapes: Sequence[Shape],
    policies: Sequence[Policy],
    step_s: StepSeconds,
) -> list[Sweep]:
    """Each policy at the same arrival rates.  crowd: as `trace` gives it, one a second."""
    most = {p.name: saturation(crowd, shapes, p, step_s) for p in policies}
    per_s = {name: len(served.requests) / served.makespan_s for name, served in most.items()}
    best = max(per_s.values())
    wanted = sorted(
        {share * best for share in LOADS}
        | {share * rate for rate in per_s.values() for share in OWN_LOADS}
    )
    rates = wanted[:1]
    for rate in wanted[1:]:
        if rate > TELLS_APART * rates[-1]:
            rates.append(rate)
    return [
        Sweep(
            p,
            most[p.name],
            [
                Load(
                    rate,
                    rate > SATURATED * per_s[p.name],
                    simulate([(at / rate, shape) for at, shape in crowd], shapes, p, step_s),
                )
                for rate in rates
            ],
        )
        for p in policies
    ]
