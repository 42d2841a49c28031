"""When to stop timing, and what is said of the samples.  Pure: any clock will do, so tests use a
fake one.

Warm-up calls run until three in a row agree (at most twenty, and no new one once their time is up),
and are kept apart. Samples are then taken in rounds until
- the 95 % confidence interval of the median is narrow enough (converged), or
- twice the samples no longer narrow it (noise_stable), or
- time or the number of samples is up (timeout, max_samples).
A long call averages its own noise: over 5 s it gets one warm-up and three samples, over 20 s one
warm-up and two (`long_samples`).  What it then has is the range of so few, with the confidence of
that (`median_interval`).
"""

from collections.abc import Callable
from math import comb

from bench.core.specs.suite import Sampling
from bench.results.readings import Timing

LONG_CALL_S = 5.0
VERY_LONG_CALL_S = 20.0
WARMUP_AGREEMENT = 0.1  # the last warm-up calls agree within this share
WARMUP_WINDOW = 3  # so many of them
MAX_WARMUP_CALLS = 20
UNSTABLE = 0.2  # half-width of the median's interval over which a point is called unstable
STALL, STALL_S = 2.0, 0.5
"""A sample that took over so many times the median, and so many seconds more, stalled: no call
varies so much by itself."""
ENERGY_WINDOW_S = (
    1.0  # that the energy counter is read over at least (bench.measure.device.telemetry)
)
# to replay a call's graph in, as far as the least number allows (bench.measure.timing.launch)
REPLAY_S = 0.5
LONGEST_REPLAYED_S = (
    0.3  # beyond it a capture and its replays cost more of a rented card's time than they say
)
ROUND_S = 0.25  # samples a round, in seconds: a round is what a crash can lose


def long_samples(call_s: float) -> int | None:
    """Samples that a call of this length takes after its one warm-up call; None where it is not
    long."""
    if call_s > VERY_LONG_CALL_S:
        return 2
    return 3 if call_s > LONG_CALL_S else None


def fewest_calls(call_s: float, plan: Sampling) -> int:
    """The fewest calls that a stage takes, warm-up included: the least that any limit of time must
    leave it."""
    few = long_samples(call_s)
    return 2 + min(3, plan.min_samples) if few is None else 1 + few


def baseline_plan(plan: Sampling) -> Sampling:
    """Of what a point is measured in turns with: three rounds tell a drift of the machine, and the
    baseline's own point has the full number of samples."""
    return plan.model_copy(
        update={"min_samples": min(3, plan.min_samples), "max_s": min(3 * ROUND_S, plan.max_s)}
    )


class Run:
    """The timing of one call, a round at a time, so that several may take turns (`sample` has it
    alone).

    time_once runs and times the call, seconds; `now` is for limits.  `prior` are samples of the
    same stage from a run that was cut off: they count, and are not taken again.  `first` are
    seconds of calls that were made before for another reason: they belong to the warm-up."""

    def __init__(
        self,
        time_once: Callable[[], float],
        plan: Sampling,
        now: Callable[[], float],
        prior: list[float] | None = None,
        first: list[float] | None = None,
    ):
        self.time_once, self.plan, self.now = time_once, plan, now
        self.samples, self.warmup, self.settled = list(prior or []), [], False
        self.first = list(first or [])
        self.spent_s = 0.0
        """In this run's own rounds, after warm-up."""
        self.stop: str | None = None

    @property
    def long_call(self) -> bool:
        # The shortest: a process that was stopped during one of several makes no call long.
        return min(self.warmup) > LONG_CALL_S

    @property
    def needed(self) -> int:
        """Samples, by the latest call: the first may have been long for another reason."""
        if not self.long_call:
            return self.plan.min_samples
        return long_samples([*self.warmup, *self.samples][-1]) or 3

    def round(self) -> list[float]:
        """Take a round -> its new samples, none once it has stopped.  The first warms up."""
        if not self.warmup:
            self.warmup, self.settled = _warm_up(self.time_once, self.plan, self.now, self.first)
            self.stop = _verdict(self.samples, self.plan, self.needed, self.long_call)
        if self.stop is not None:
            return []
        start, fresh = self.now(), []
        while True:
            seconds = self.time_once()
            if not self.samples and not fresh and len(self.warmup) == 1 and seconds <= LONG_CALL_S:
                # The first call alone was long, for compiling: this one belongs to the warm-up
                # still.
                self.warmup, self.settled = _warm_up(
                    self.time_once, self.plan, self.now, [*self.warmup, seconds]
                )
                continue
            fresh.append(seconds)
            enough = len(self.samples) + len(fresh) >= (
                self.needed if self.long_call else self.plan.max_samples
            )
            if enough or self.now() - start >= ROUND_S:
                break
        self.samples += fresh
        self.spent_s += self.now() - start
        self.stop = _verdict(self.samples, self.plan, self.needed, self.long_call)
        if (
            self.stop is None
            and len(self.samples) >= min(3, self.needed)
            and self.spent_s >= self.plan.max_s
        ):
            self.stop = "timeout"
        return fresh

    def timing(self) -> Timing:
        assert self.stop is not None, "still running"
        return summarise(self.samples, self.warmup, self.stop, self.settled)


def sample(
    time_once: Callable[[], float],
    plan: Sampling,
    now: Callable[[], float],
    *,
    prior: list[float] | None = None,
    on_round: Callable[[list[float]], None] = lambda samples: None,
) -> Timing:
    """Time a call until the plan is met.  on_round gets each round's new samples as they come."""
    run = Run(time_once, plan, now, prior)
    while run.stop is None:
        fresh = run.round()
        if fresh:
            on_round(fresh)
    return run.timing()


def take_turns(runs: dict[str, Run], on_round: Callable[[str, list[float]], None]) -> None:
    """Visit the runs in rounds until each has stopped, so that a drift of the machine falls on all
    of them alike.

    A run that comes back after others finds cold caches, which a denoising loop would not: its
    first call is not counted, unless it is as long as a round by itself."""
    visited: str | None = None
    while any(run.stop is None for run in runs.values()):
        for name, run in runs.items():
            if run.stop is not None:
                continue
            if (
                run.warmup and visited != name and run.warmup[-1] < ROUND_S
            ):  # a long call fills its caches in no time
                run.time_once()
            fresh, visited = run.round(), name
            if fresh:
                on_round(name, fresh)


def summarise(samples: list[float], warmup: list[float], stop: str, settled: bool) -> Timing:
    """Median, its interval, quantiles.  Raises ValueError without samples."""
    if not samples:
        raise ValueError("no samples to summarise")
    ordered = sorted(samples)
    low, high, confidence = median_interval(ordered)
    return Timing(
        samples_s=samples,
        warmup_s=warmup,
        median_s=quantile(ordered, 0.5),
        low_s=low,
        high_s=high,
        confidence=confidence,
        warmup_settled=settled,
        p5_s=quantile(ordered, 0.05),
        p25_s=quantile(ordered, 0.25),
        p75_s=quantile(ordered, 0.75),
        p95_s=quantile(ordered, 0.95),
        n=len(samples),
        stop=stop,
    )


def median_interval(ordered: list[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """Distribution-free interval of the median from order statistics (binomial), and the confidence
    it has: at least what is asked, or for n < 6, where no pair of order statistics reaches 95 %,
    that of the whole range, 1 - 2^(1 - n)."""
    n = len(ordered)
    tail, k = 0.0, 0  # P(fewer than k + 1 of n samples lie below the median)
    while k < n // 2 and 2 * (tail + comb(n, k) / 2**n) <= 1 - confidence:
        tail += comb(n, k) / 2**n
        k += 1
    k = max(k - 1, 0)
    return ordered[k], ordered[n - 1 - k], 1 - 2 * sum(comb(n, i) for i in range(k + 1)) / 2**n


def quantile(ordered: list[float], q: float) -> float:
    """Linear interpolation between order statistics."""
    position = q * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (position - low) * (ordered[high] - ordered[low])


def relative_half_width(samples: list[float]) -> float:
    """Half the median's interval over the median."""
    ordered = sorted(samples)
    low, high, _ = median_interval(ordered)
    return (high - low) / 2 / quantile(ordered, 0.5)


def unstable_reason(stage: str, timing: Timing) -> str | None:
    """Why a stage's median is not to be relied on; None where it is.  A call over 5 s averages its
    own noise."""
    if (
        timing.stop == "converged"
        or timing.median_s > LONG_CALL_S
        or timing.relative_half_width <= UNSTABLE
    ):
        return None
    return (
        f"{stage}: the median of {timing.n} samples is known to ±{timing.relative_half_width:.0%}"
        f" alone, over ±{UNSTABLE:.0%}; is something else running on this machine?"
    )


def stalls(timing: Timing) -> list[float]:
    """The samples during which something stopped the process or the machine.  The median leaves
    them out, so whoever reads it alone does not see them."""
    longest = max(STALL * timing.median_s, timing.median_s + STALL_S)
    return [seconds for seconds in timing.samples_s if seconds > longest]


def _warm_up(
    time_once: Callable[[], float], plan: Sampling, now: Callable[[], float], calls: list[float]
) -> tuple[list[float], bool]:
    """The calls (those made before among them), and whether they settled.  At least two, of which
    the first may compile; one where it is long."""
    start = now()
    calls = list(calls) or [time_once()]
    if len(calls) == 1 and calls[0] > LONG_CALL_S:
        return calls, True
    while len(calls) < 2 or (len(calls) < MAX_WARMUP_CALLS and now() - start < plan.max_s):
        calls.append(time_once())
        window = calls[-WARMUP_WINDOW:]
        if len(window) == WARMUP_WINDOW and max(window) - min(window) <= WARMUP_AGREEMENT * min(
            window
        ):
            return calls, True
    return calls, False


def _verdict(samples: list[float], plan: Sampling, needed: int, long_call: bool) -> str | None:
    n = len(samples)
    if n < needed:
        return None
    if long_call:
        return "max_samples"  # two or three, however near: their range has no 95 % to converge to
    if relative_half_width(samples) <= plan.target_relative_half_width:
        return "converged"
    if n >= plan.max_samples:
        return "max_samples"
    if n >= 4 * plan.min_samples and relative_half_width(samples) > 0.95 * relative_half_width(
        samples[: n // 2]
    ):
        return "noise_stable"
    return None
