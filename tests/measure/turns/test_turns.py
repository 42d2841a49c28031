"""Two checkouts in turns: the order, the interval, when it is clear; on fake visits."""

import random
from math import exp, log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.measure.turns.side import ROUND_S, visit
from bench.measure.turns.turns import (
    MIN_BLOCKS,
    Block,
    ratio_of,
    take_turns,
    time_until_clear,
)
from bench.studies.compare.verdict import judge


def test_rounds_are_in_the_other_order_each_time():
    order = []

    def side(name, seconds):
        def visited():
            order.append(name)
            return [seconds]

        return visited

    block = take_turns([side("a", 1.0), side("b", 2.0)], rounds=4)
    assert "".join(order) == "ab" + "abba" + "abba"  # a warm visit of each, then ABBA
    assert block == Block([1.0] * 4, [2.0] * 4)
    assert block.log_ratio == pytest.approx(log(2))


def test_a_visit_lasts_a_round_and_leaves_its_first_call_out():
    calls = iter([1.0 * ROUND_S / 3] * 9)
    samples = visit(lambda: next(calls))
    assert len(samples) == 3
    assert len(list(calls)) == 9 - 4


def test_a_call_as_long_as_a_visit_is_made_once():
    calls = iter([10.0, 11.0])
    assert visit(lambda: next(calls)) == [10.0]


def blocks_of(ratios):
    """Blocks one after another, each with its ratio; and how many were taken."""
    left = iter(ratios)
    return lambda: Block([1.0], [next(left)])


def clock(step):
    now = iter(i * step for i in range(10_000))
    return lambda: next(now)


def unclear(ratio):
    return False


def test_it_stops_once_it_is_clear_and_not_before_the_fewest_blocks():
    turns = time_until_clear(blocks_of([1.15] * 99), lambda r: True, clock(1.0), max_s=1e9)
    assert len(turns.blocks) == MIN_BLOCKS


def test_what_stays_unclear_is_measured_again_until_time_is_up():
    turns = time_until_clear(blocks_of([1.0, 1.1] * 99), unclear, clock(1.0), max_s=20.0)
    assert len(turns.blocks) > MIN_BLOCKS
    assert judge(*turns.ratio, 0.05) == "UNCLEAR"


def test_time_that_is_up_early_still_leaves_an_interval():
    turns = time_until_clear(blocks_of([1.0, 1.1] * 9), unclear, clock(100.0), max_s=1.0)
    assert len(turns.blocks) == 2
    value, low, high = turns.ratio
    assert low < value < high


def simulated(change, seed, scatter=0.03):
    """The verdict where pairs of processes scatter by 3 %, as pairs of one code did here."""
    rng = random.Random(seed)
    ratios = (change * exp(rng.gauss(0, scatter)) for _ in range(10_000))
    found = time_until_clear(
        blocks_of(ratios), lambda r: judge(*r, 0.05) != "UNCLEAR", clock(4.0), max_s=120.0
    )
    return judge(*found.ratio, 0.05)


def test_of_simulated_pairs_15_percent_are_caught_and_equal_ones_are_not_called_slower():
    assert [simulated(1.15, seed) for seed in range(200)].count("SLOWER") == 200
    equal = [simulated(1.0, seed) for seed in range(400)]
    assert equal.count("SLOWER") <= 4
    assert equal.count("SAME") > 300


@given(st.lists(st.floats(-0.5, 0.5), min_size=2, max_size=30))
def test_the_interval_holds_the_mean_and_is_symmetric_in_the_sides(logs):
    value, low, high = ratio_of(logs)
    assert low <= value <= high
    back = ratio_of([-x for x in logs])
    assert back == pytest.approx((1 / value, 1 / high, 1 / low))
