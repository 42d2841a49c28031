"""When timing stops, on a fake clock: no test here waits or reads a real one."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.measure.timing.sampling import (
    Run,
    baseline_plan,
    fewest_calls,
    long_samples,
    median_interval,
    quantile,
    sample,
    stalls,
    summarise,
    take_turns,
    unstable_reason,
)
from support.plans import PLAN


class FakeClock:
    """Each call takes the next duration; time passes only so."""

    def __init__(self, durations):
        self.durations, self.t, self.calls = iter(durations), 0.0, 0

    def once(self) -> float:
        seconds = next(self.durations)
        self.t += seconds
        self.calls += 1
        return seconds

    def now(self) -> float:
        return self.t


def run(durations, plan=PLAN, **kwargs):
    clock = FakeClock(durations)
    return sample(clock.once, plan, clock.now, **kwargs), clock


def forever(value):
    while True:
        yield value


def noisy(seed, mean=0.05, sd=0.3):
    rng = random.Random(seed)
    while True:
        yield max(mean * rng.gauss(1, sd), 1e-4)


def test_a_steady_call_converges_at_once():
    timing, _ = run(forever(0.1))
    assert (timing.stop, timing.median_s) == ("converged", 0.1)
    assert timing.n >= PLAN.min_samples
    assert len(timing.warmup_s) == 3


def test_compile_and_cache_misses_stay_in_the_warm_up():
    def calls():
        yield from (3.0, 0.5, 0.2, 0.11)
        yield from forever(0.1)

    timing, _ = run(calls())
    assert timing.warmup_s == [3.0, 0.5, 0.2, 0.11, 0.1, 0.1]
    assert set(timing.samples_s) == {0.1}


def test_warm_up_says_whether_it_settled_and_takes_two_calls_where_time_is_short():
    short = PLAN.model_copy(update={"max_s": 1.0})
    timing, _ = run(forever(1.5), short)  # the first call spends the time
    assert (timing.warmup_s, timing.warmup_settled) == ([1.5, 1.5], False)
    erratic = (d for i in range(1000) for d in (0.1, 0.2))
    timing, _ = run(erratic)
    assert (len(timing.warmup_s), timing.warmup_settled) == (20, False)
    timing, _ = run(forever(6.0))
    assert (timing.warmup_s, timing.warmup_settled) == ([6.0], True)


def test_a_first_call_that_compiles_for_long_does_not_make_the_call_long():
    def calls():
        yield 30.0
        yield from forever(0.1)

    timing, _ = run(calls())
    assert timing.warmup_s == [30.0, 0.1, 0.1, 0.1]
    assert (timing.stop, timing.warmup_settled, set(timing.samples_s)) == ("converged", True, {0.1})
    assert timing.n >= PLAN.min_samples


def test_a_process_that_is_stopped_in_its_warm_up_makes_no_call_long():
    """Such a call was taken for one of 5 s, and the stage had three samples."""
    plan = PLAN.model_copy(update={"max_s": 1.0})
    timing, _ = run(itertools.chain([0.1, 0.2, 5.3], forever(0.1)), plan)
    assert (timing.warmup_s, timing.warmup_settled) == ([0.1, 0.2, 5.3], False)
    assert timing.n >= PLAN.min_samples
    assert timing.stop == "converged"


def test_a_sample_in_which_the_process_was_stopped_is_told():
    stopped = summarise([0.1] * 20 + [5.1] + [0.1] * 19, [0.1], "timeout", True)
    assert (stopped.median_s, stopped.high_s) == (0.1, 0.1)  # they do not show it
    assert stalls(stopped) == [5.1]


@pytest.mark.parametrize(
    ("usual", "one"), [(0.001, 0.4), (3.0, 5.9), (3.0, 6.0), (20.0, 25.0), (0.1, 0.1)]
)
def test_noise_is_no_stall(usual, one):
    """A millisecond's call that waits its turn on a busy machine; a long one that varies."""
    assert stalls(summarise([usual, one, usual], [usual], "timeout", True)) == []


def test_turns_share_a_drift_and_leave_cold_calls_out():
    """Two calls of equal cost on a machine that gets slower: one after the other they differ, in
    turns they do not."""

    class Drifting(FakeClock):
        def __init__(self):
            super().__init__(forever(0.0))

        def once(self):
            seconds = 0.05 * (1 + self.t / 20)
            self.t += seconds
            self.calls += 1
            return seconds

    plan = PLAN.model_copy(
        update={"target_relative_half_width": 1e-6, "max_samples": 40, "max_s": 1e6}
    )
    alone = Drifting()
    first, second = (sample(alone.once, plan, alone.now) for _ in range(2))
    clock, seen = Drifting(), []
    runs = {name: Run(clock.once, plan, clock.now) for name in ("a", "b")}
    take_turns(runs, lambda name, fresh: seen.append((name, len(fresh))))
    a, b = (runs[name].timing() for name in ("a", "b"))
    assert second.median_s / first.median_s > 1.05
    assert abs(b.median_s / a.median_s - 1) < 0.02
    assert [name for name, _ in seen[:4]] == ["a", "b", "a", "b"]
    assert sum(n for name, n in seen if name == "a") == a.n
    assert clock.calls > a.n + b.n + len(a.warmup_s) + len(
        b.warmup_s
    )  # the calls that warmed caches again


@pytest.mark.parametrize(
    ("n", "confidence"), [(1, 0.0), (2, 0.5), (3, 0.75), (4, 0.875), (5, 0.9375), (6, 0.96875)]
)
def test_a_few_samples_have_only_their_range(n, confidence):
    """P(median outside the range of n) = 2 / 2^n; six samples are the first to reach 95 %."""
    assert median_interval([float(i) for i in range(n)]) == (0.0, n - 1.0, confidence)


def test_an_unstable_median_is_named_and_a_long_call_is_not():
    timing, _ = run(noisy(1, sd=0.5), PLAN.model_copy(update={"max_samples": 7}))
    assert timing.stop == "max_samples"
    assert "vae_decode: the median of 7 samples is known to ±" in unstable_reason(
        "vae_decode", timing
    )
    steady, _ = run(forever(0.1))
    assert unstable_reason("vae_decode", steady) is None
    long, _ = run(iter([6.0, 6.0, 12.0, 18.0]))
    assert long.relative_half_width > 0.2
    assert unstable_reason("vae_decode", long) is None


def test_noise_runs_into_the_limit_and_says_so():
    timing, clock = run(
        noisy(0), PLAN.model_copy(update={"target_relative_half_width": 1e-6, "max_s": 2.0})
    )
    assert timing.stop in ("timeout", "noise_stable")
    assert clock.t < 4.0
    timing, _ = run(
        noisy(0),
        PLAN.model_copy(
            update={"target_relative_half_width": 1e-6, "max_s": 1e6, "max_samples": 20}
        ),
    )
    assert timing.stop == "max_samples"
    assert timing.n == 20


def test_noise_that_does_not_fall_stops_the_sampling():
    """A machine that drifts: the more samples, the wider."""

    def drifting():
        for i in range(10**6):
            yield 0.01 * (1 + i / 20)

    timing, _ = run(drifting(), PLAN.model_copy(update={"max_s": 1e6, "max_samples": 10_000}))
    assert timing.stop == "noise_stable"


@pytest.mark.parametrize(
    ("seconds", "samples", "confidence"),
    [(5.1, 3, 0.75), (20.0, 3, 0.75), (20.1, 2, 0.5), (57.0, 2, 0.5)],
)
def test_a_long_call_takes_one_warm_up_and_few_samples_and_says_what_they_are_worth(
    seconds, samples, confidence
):
    """P(median outside the range of n) = 2 / 2^n.  However equal they are, they did not
    converge."""
    timing, clock = run(forever(seconds))
    assert (len(timing.warmup_s), timing.n, clock.calls) == (1, samples, samples + 1)
    assert (timing.low_s, timing.median_s, timing.high_s) == (seconds, seconds, seconds)
    assert (timing.confidence, timing.stop, timing.warmup_settled) == (
        confidence,
        "max_samples",
        True,
    )
    assert fewest_calls(seconds, PLAN) == clock.calls == 1 + long_samples(seconds)
    uneven, _ = run(iter([seconds, seconds, *[0.99 * seconds] * 3]))
    assert (uneven.low_s, uneven.high_s) == (0.99 * seconds, seconds)


def test_the_latest_call_says_how_long_it_is():
    """A first call of 30 s that compiles: the calls after it take 8 s, and three of them are
    wanted."""
    timing, _ = run(iter([30.0, *[8.0] * 9]))
    assert (timing.warmup_s, timing.samples_s) == ([30.0], [8.0] * 3)


def test_the_fewest_calls_of_a_short_stage():
    assert (fewest_calls(0.1, PLAN), fewest_calls(5.0, PLAN), long_samples(5.0)) == (5, 5, None)
    assert fewest_calls(0.1, PLAN.model_copy(update={"min_samples": 2})) == 4


def test_a_call_that_was_made_before_belongs_to_the_warm_up():
    clock = FakeClock(forever(57.0))
    run_ = Run(clock.once, PLAN, clock.now, first=[57.5])
    while run_.stop is None:
        run_.round()
    assert (run_.warmup, run_.samples, clock.calls) == ([57.5], [57.0, 57.0], 2)
    clock = FakeClock(forever(0.1))
    run_ = Run(clock.once, PLAN, clock.now, first=[0.1])
    run_.round()
    assert run_.warmup == [0.1] * 3


def test_a_baseline_in_turns_takes_three_rounds():
    wild = PLAN.model_copy(update={"target_relative_half_width": 1e-6})
    for seconds, samples in ((0.05, 15), (1.0, 3), (6.0, 3), (57.0, 2)):
        timing, _ = run(noisy(0, seconds, 0.01), baseline_plan(wild))
        assert timing.n == pytest.approx(samples, abs=2 if seconds < 1 else 0), seconds


def test_rounds_are_handed_over_as_they_come_and_hold_every_sample():
    rounds = []
    timing, _ = run(noisy(1), PLAN.model_copy(update={"max_s": 3.0}), on_round=rounds.append)
    assert [s for r in rounds for s in r] == timing.samples_s
    assert len(rounds) > 3


def test_prior_samples_count_and_are_not_taken_again():
    timing, clock = run(forever(0.1), prior=[0.1] * 7)
    assert timing.n == 7
    assert clock.calls == 3  # the warm-up alone
    timing, _ = run(forever(0.1), prior=[0.1] * 5)
    assert timing.n >= 7
    assert timing.samples_s[:5] == [0.1] * 5


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=60))
def test_summary_is_ordered_and_within_the_samples(samples):
    t = summarise(samples, [1.0], "converged", True)
    assert min(samples) <= t.low_s <= t.median_s <= t.high_s <= max(samples)
    assert t.p5_s <= t.p25_s <= t.median_s <= t.p75_s <= t.p95_s
    assert t.n == len(samples)


def test_no_samples_is_an_error():
    with pytest.raises(ValueError, match="no samples"):
        summarise([], [], "timeout", True)


@pytest.mark.parametrize(
    ("n", "low", "high"), [(3, 0, 2), (5, 0, 4), (6, 0, 5), (10, 1, 8), (20, 5, 14)]
)
def test_interval_of_the_median_from_order_statistics(n, low, high):
    """n = 10: P(fewer than 2 of 10 below the median) = 11/1024, twice that is 2.1 %; fewer than 3:
    10.9 %."""
    assert median_interval([float(i) for i in range(n)])[:2] == (low, high)


def test_interval_covers_the_median_19_times_of_20():
    rng = random.Random(0)
    covered = 0
    for _ in range(1000):
        low, high, _ = median_interval(sorted(rng.expovariate(1.0) for _ in range(25)))
        covered += low <= 0.6931 <= high  # ln 2
    assert 940 <= covered <= 985  # at least 95 %: order statistics err on the safe side


def test_quantile_interpolates():
    assert quantile([0.0, 1.0, 2.0, 3.0], 0.5) == 1.5
    assert quantile([5.0], 0.95) == 5.0
