"""The queue against closed forms and by hand, on step times made up here."""

from itertools import pairwise
from statistics import mean, stdev

import pytest

from bench.studies.serving.queue import Policy, Shape, saturation, simulate, trace

ONE = Shape("one", tokens=100, steps=4, beside_s=0.0, video_s=2.0)
BIG = Shape("big", tokens=400, steps=8, beside_s=0.5, video_s=8.0)


def policy(
    name="single",
    max_requests=1,
    token_budget=None,
    one_shape=False,
    joins="batches",
    max_wait_s=0.0,
):
    return Policy(name, max_requests, token_budget, one_shape, joins, max_wait_s)


POLICIES = [
    policy(),
    policy("static", 4, one_shape=True, max_wait_s=2.0),
    policy("packed", 8, 700, max_wait_s=2.0),
    policy("continuous", 8, 700, joins="steps"),
    policy("continuous, one shape", 4, one_shape=True, joins="steps"),
]


def by_tokens(composition):
    """A fixed part and one for each hundred tokens."""
    return 0.1 + 0.15 * composition[0] + 0.6 * (composition[1] if len(composition) > 1 else 0)


def flat(composition):
    return 0.25


def scaled(arrivals, rate):
    return [(at / rate, shape) for at, shape in arrivals]


@pytest.mark.parametrize("rho", [0.3, 0.6, 0.8])
def test_batch_1_waits_as_m_d_1_does(rho):
    """Mean wait of M/D/1 (Pollaczek-Khinchine): rho s / (2 (1 - rho)), s = 1 s here."""
    served = simulate(scaled(trace(60_000, [1.0], seed=1), rho), [ONE], policy(), flat)
    waits = [r.start_s - r.arrival_s for r in served.requests]
    batches = [
        mean(waits[i : i + 2000]) for i in range(0, 60_000, 2000)
    ]  # neighbours are alike, means of 2,000 hardly
    error = stdev(batches) / len(batches) ** 0.5
    expected = rho / (2 * (1 - rho))
    assert abs(mean(waits) - expected) < 4 * error
    assert error < 0.1 * expected
    assert served.utilisation == pytest.approx(rho, rel=0.03)


@pytest.mark.parametrize("p", POLICIES, ids=lambda p: p.name)
@pytest.mark.parametrize("rate", [0.05, 0.5, 5.0])
def test_each_request_finishes_once_and_nothing_is_done_twice(p, rate):
    arrivals = scaled(trace(2000, [0.7, 0.3], seed=2), rate)
    served = simulate(arrivals, [ONE, BIG], p, by_tokens)
    assert sorted(r.number for r in served.requests) == list(range(2000))
    assert all(r.left == 0 and r.arrival_s <= r.start_s < r.finish_s for r in served.requests)
    for i, shape in enumerate([ONE, BIG]):  # steps made of each shape = steps asked for
        assert sum(c[i] * n for c, n in served.steps.items()) == shape.steps * sum(
            s == i for _, s in arrivals
        )
    spent = sum(by_tokens(c) * n for c, n in served.steps.items()) + 0.5 * sum(
        s for _, s in arrivals
    )
    assert served.busy_s == pytest.approx(spent)
    assert served.utilisation <= 1 + 1e-9
    for composition in served.steps:
        assert sum(composition) <= p.max_requests
        tokens = 100 * composition[0] + 400 * composition[1]
        assert p.token_budget is None or tokens <= p.token_budget or sum(composition) == 1
        assert not p.one_shape or 0 in composition


@pytest.mark.parametrize("p", POLICIES, ids=lambda p: p.name)
def test_first_in_first_out(p):
    """Nobody starts before one that came earlier; where a batch has one shape, before one of its
    shape."""
    served = simulate(scaled(trace(1000, [0.7, 0.3], seed=3), 0.7), [ONE, BIG], p, by_tokens)
    by_number = sorted(served.requests, key=lambda r: r.number)
    overtakes = p.one_shape and p.joins == "batches"
    queues = (
        [[r for r in by_number if r.shape == i] for i in range(2)] if overtakes else [by_number]
    )
    for queue in queues:
        assert all(a.start_s <= b.start_s for a, b in pairwise(queue))


@pytest.mark.parametrize("p", POLICIES, ids=lambda p: p.name)
def test_no_request_starves(p):
    """One large request among many small, at a load where the queue never empties: it starts no
    later than when all that were there before it, and one batch, have been served."""
    arrivals = [(0.0, 0)] * 50 + [(0.0, 1)] + [(0.01 * i, 0) for i in range(1, 500)]
    served = simulate(arrivals, [ONE, BIG], p, by_tokens)
    big = next(r for r in served.requests if r.shape == 1)
    before = [r for r in served.requests if r.start_s < big.start_s]
    assert len(before) <= 50 + p.max_requests


def test_saturation_is_the_inverse_of_a_step():
    """A step of any four takes 0.25 s: 16 requests a second of 4 steps are 4 s of work, so 4 a
    second; alone 1 a second."""
    arrivals = trace(4000, [1.0], seed=4)
    for p, rate in (
        (policy(), 1.0),
        (policy("static", 4, one_shape=True), 4.0),
        (policy("c", 4, joins="steps"), 4.0),
    ):
        served = saturation(arrivals, [ONE], p, flat)
        assert 4000 / served.makespan_s == pytest.approx(rate)
        assert served.utilisation == pytest.approx(1.0)
        overloaded = simulate(scaled(arrivals, 5.0), [ONE], p, flat)
        assert 4000 / overloaded.makespan_s == pytest.approx(rate, rel=0.01)


def starts(arrivals, p, step_s=flat, shapes=(ONE, BIG)):
    return {
        r.number: (r.start_s, r.finish_s) for r in simulate(arrivals, shapes, p, step_s).requests
    }


def test_joining_between_steps_by_hand():
    """Steps of 0.25 s.  The second comes at 0.3, in the second step, and runs from 0.5; four steps
    each."""
    assert starts([(0.0, 0), (0.3, 0)], policy("c", 2, joins="steps")) == {
        0: (0.0, 1.0),
        1: (0.5, 1.5),
    }
    assert starts([(0.0, 0), (0.3, 0)], policy("b", 2)) == {0: (0.0, 1.0), 1: (1.0, 2.0)}
    assert starts([(0.0, 0), (0.5, 0)], policy("c", 2, joins="steps"))[1] == (
        0.5,
        1.5,
    )  # just in time


def test_an_idle_device_waits_for_company_no_longer_than_it_may():
    wait = policy("static", 2, one_shape=True, max_wait_s=1.0)
    assert starts([(0.0, 0), (0.6, 0), (9.0, 0)], wait) == {
        0: (0.6, 1.6),
        1: (0.6, 1.6),
        2: (9.0, 10.0),
    }
    assert starts([(0.0, 0), (0.6, 1), (9.0, 0)], wait)[0] == (
        1.0,
        2.0,
    )  # the other shape is no company
    assert starts([(0.0, 0), (5.0, 0)], wait)[0] == (1.0, 2.0)
    budget = policy("packed", 8, 450, max_wait_s=1.0)
    assert starts([(0.0, 0), (0.6, 1), (9.0, 0)], budget)[0] == (
        0.6,
        1.6,
    )  # full: what waits would not fit


def test_the_oldest_shape_is_next_and_decode_holds_the_others_up():
    one = policy("static", 4, one_shape=True)
    assert starts([(0.0, 0), (0.1, 1), (0.2, 0)], one) == {
        0: (0.0, 1.0),
        1: (1.0, 3.5),
        2: (3.5, 4.5),
    }
    # big: 8 steps and 0.5 s of decode, while the small one's second step waits
    both = starts([(0.0, 1), (1.6, 0)], policy("c", 2, joins="steps"))
    assert both == {0: (0.0, 2.5), 1: (1.75, 3.25)}


def test_a_policy_that_makes_no_sense_says_so():
    with pytest.raises(ValueError, match="joins 'step' is not one of batches, steps"):
        policy(joins="step")
    with pytest.raises(ValueError, match="max_requests 0"):
        policy(max_requests=0)


def test_a_trace_is_poisson_and_the_same_again():
    arrivals = trace(20_000, [3, 1], seed=5)
    gaps = [b - a for (a, _), (b, _) in pairwise(arrivals)]
    assert mean(gaps) == pytest.approx(1, rel=0.03)
    assert stdev(gaps) == pytest.approx(1, rel=0.05)  # an exponential's spread is its mean
    assert sum(s for _, s in arrivals) / 20_000 == pytest.approx(0.25, abs=0.01)
    assert trace(50, [3, 1], seed=5) == arrivals[:50]
    assert trace(50, [3, 1], seed=6) != arrivals[:50]
