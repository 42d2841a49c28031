"""When to stop timing, and what is said of the samples.  Pure: any clock will do, so tests use a fake one.

Warm-up calls run until two in a row agree (at most ten, and no new one once their time is up), and are kept apart.
Samples are then taken in rounds until
- the 95 % confidence interval of the median is narrow enough (converged), or
- twice the samples no longer narrow it (noise_stable), or
- time or the number of samples is up (timeout, max_samples).
A call over 5 s gets one warm-up and three samples: its own length averages the noise.
"""

from collections.abc import Callable
from math import comb

from bench.core.records import Timing
from bench.core.spec import Sampling

LONG_CALL_S = 5.0
WARMUP_AGREEMENT = 0.1     # two warm-up calls agree within this share
MAX_WARMUP_CALLS = 10
UNSTABLE = 0.2             # half-width of the median's interval over which a point is called unstable
ROUND_S = 0.25             # samples a round, in seconds: a round is what a crash can lose


def sample(
    time_once: Callable[[], float], plan: Sampling, now: Callable[[], float], *,
    prior: list[float] | None = None, on_round: Callable[[list[float]], None] = lambda samples: None,
) -> Timing:
    """Time a call until the plan is met.

    time_once runs and times the call, seconds; `now` is for limits.  `prior` are samples of the same stage from a run
    that was cut off: they count, and are not taken again.  on_round gets each round's new samples as they come."""
    samples = list(prior or [])
    warmup, settled = _warm_up(time_once, plan, now)
    long_call = warmup[-1] > LONG_CALL_S
    needed = 3 if long_call else plan.min_samples
    start = now()
    stop = _verdict(samples, plan, needed, long_call)
    while stop is None:
        round_start, fresh = now(), []
        while True:
            fresh.append(time_once())
            enough = len(samples) + len(fresh) >= (needed if long_call else plan.max_samples)
            if enough or now() - round_start >= ROUND_S:
                break
        samples += fresh
        on_round(fresh)
        stop = _verdict(samples, plan, needed, long_call)
        if stop is None and len(samples) >= min(3, needed) and now() - start >= plan.max_s:
            stop = "timeout"
    return summarise(samples, warmup, stop, settled)


def summarise(samples: list[float], warmup: list[float], stop: str, settled: bool) -> Timing:
    """Median, its interval, quantiles.  Raises ValueError without samples."""
    if not samples:
        raise ValueError("no samples to summarise")
    ordered = sorted(samples)
    low, high, confidence = median_interval(ordered)
    return Timing(
        samples_s=samples, warmup_s=warmup, median_s=quantile(ordered, 0.5), low_s=low, high_s=high,
        confidence=confidence, warmup_settled=settled,
        p5_s=quantile(ordered, 0.05), p25_s=quantile(ordered, 0.25), p75_s=quantile(ordered, 0.75),
        p95_s=quantile(ordered, 0.95), n=len(samples), stop=stop,
    )


def median_interval(ordered: list[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """Distribution-free interval of the median from order statistics (binomial), and the confidence it has: at least
    what is asked, or for n < 6, where no pair of order statistics reaches 95 %, that of the whole range, 1 - 2^(1 - n)."""
    n = len(ordered)
    tail, k = 0.0, 0                       # P(fewer than k + 1 of n samples lie below the median)
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
    """Why a stage's median is not to be relied on; None where it is.  A call over 5 s averages its own noise."""
    if timing.stop == "converged" or timing.median_s > LONG_CALL_S or timing.relative_half_width <= UNSTABLE:
        return None
    return (f"{stage}: the median of {timing.n} samples is known to ±{timing.relative_half_width:.0%} alone, over "
            f"±{UNSTABLE:.0%}; is something else running on this machine?")


def _warm_up(time_once: Callable[[], float], plan: Sampling, now: Callable[[], float]) -> tuple[list[float], bool]:
    """The calls, and whether they settled.  At least two, of which the first may compile; one where it is long."""
    start, calls = now(), [time_once()]
    if calls[0] > LONG_CALL_S:
        return calls, True
    while len(calls) < 2 or (len(calls) < MAX_WARMUP_CALLS and now() - start < plan.max_s):
        calls.append(time_once())
        if abs(calls[-1] - calls[-2]) <= WARMUP_AGREEMENT * calls[-2]:
            return calls, True
    return calls, False


def _verdict(samples: list[float], plan: Sampling, needed: int, long_call: bool) -> str | None:
    n = len(samples)
    if n < needed:
        return None
    if relative_half_width(samples) <= plan.target_relative_half_width:
        return "converged"
    if long_call or n >= plan.max_samples:
        return "max_samples"
    if n >= 4 * plan.min_samples and relative_half_width(samples) > 0.95 * relative_half_width(samples[: n // 2]):
        return "noise_stable"
    return None
