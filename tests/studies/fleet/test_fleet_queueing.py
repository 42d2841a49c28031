"""Queues of many servers: closed forms against each other, and the simulation against them."""

import random
from math import erf, exp, pi, sqrt
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.studies.fleet.queueing import (
    erlang_c,
    mean_wait_s,
    servers_for,
    wait_quantile_s,
)
from bench.studies.fleet.simulate import Kind, simulate


@pytest.mark.parametrize(
    ("servers", "erlangs", "waits"),
    [
        (1, 0.7, 0.7),  # M/M/1: the share of time that it is busy
        (2, 1.0, 1 / 3),  # a^2/2 * 2/(2-a) / (1 + a + that), by hand
        (10, 8.0, 0.40918),  # tables of Erlang C
        (100, 90.0, 0.21688),
        (5, 5.0, 1.0),
        (5, 0.0, 0.0),
    ],
)
def test_erlang_c(servers, erlangs, waits):
    assert erlang_c(servers, erlangs) == pytest.approx(waits, abs=2e-3)


def test_two_servers_by_hand():
    # a = 1: C = (1/2 * 2) / (1 + 1 + 1/2 * 2) = 1/3
    assert erlang_c(2, 1.0) == pytest.approx(1 / 3, rel=1e-12)


@pytest.mark.parametrize(("servers", "load"), [(3, 0.5), (40, 0.8), (700, 0.97)])
def test_erlang_c_is_its_own_recursion(servers, load):
    """B(n) = a B(n - 1) / (n + a B(n - 1)), from B(0) = 1."""
    erlangs, blocked = servers * load, 1.0
    for n in range(1, servers + 1):
        blocked = erlangs * blocked / (n + erlangs * blocked)
    waits = blocked / (1 - load * (1 - blocked))
    assert erlang_c(servers, erlangs) == pytest.approx(waits, rel=1e-9)


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
def test_many_servers_are_halfin_and_whitts(beta):
    """With a + beta sqrt(a) servers, 1 / (1 + beta Phi(beta) / phi(beta)) wait (1981)."""
    erlangs = 1e8
    below, density = (1 + erf(beta / sqrt(2))) / 2, exp(-(beta**2) / 2) / sqrt(2 * pi)
    limit = 1 / (1 + beta * below / density)
    assert erlang_c(int(erlangs + beta * sqrt(erlangs)), erlangs) == pytest.approx(limit, rel=1e-3)


@given(st.integers(1, 2000), st.floats(0.01, 0.999), st.floats(0.0, 4.0), st.floats(0.5, 0.99))
def test_waits_fall_with_servers_and_rise_with_load(servers, load, cv2, share):
    erlangs = servers * load
    here = wait_quantile_s(servers, erlangs, 10.0, cv2, share)
    assert wait_quantile_s(servers + 1, erlangs, 10.0, cv2, share) <= here + 1e-9
    assert wait_quantile_s(servers, erlangs * 0.99, 10.0, cv2, share) <= here + 1e-9
    assert mean_wait_s(servers, erlangs, 10.0, cv2) >= 0


@given(st.floats(0.5, 5000), st.floats(1.0, 1000.0), st.floats(0.0, 500.0))
def test_the_fewest_servers_meet_the_objective_and_one_fewer_does_not(erlangs, service, within):
    n = servers_for(erlangs, service, 1.0, 0.95, within)
    assert wait_quantile_s(n, erlangs, service, 1.0, 0.95) <= within
    assert n > erlangs
    if n - 1 > erlangs:
        assert wait_quantile_s(n - 1, erlangs, service, 1.0, 0.95) > within


def test_a_large_pool_needs_little_spare():
    """The square-root rule: the spare share falls as the root of the size grows."""
    spare = [servers_for(a, 100.0, 1.0, 0.95, 0.0) / a - 1 for a in (100, 10_000, 1_000_000)]
    assert spare[0] / spare[1] == pytest.approx(10, rel=0.15)
    assert spare[1] / spare[2] == pytest.approx(10, rel=0.15)


def waits_of(service, servers, per_s, requests=60_000, seed=1):
    run = simulate([Kind("clip", 1.0, service)], servers, per_s, requests, seed)
    return run, [d.wait_s for d in run.after(requests // 20)]


def exponential(rng: random.Random) -> float:
    return rng.expovariate(1.0)


def always(rng: random.Random) -> float:
    return 1.0


QUEUES = pytest.mark.parametrize(
    ("service", "cv2", "servers", "load"),
    [(exponential, 1.0, 1, 0.5), (always, 0.0, 1, 0.5), (exponential, 1.0, 5, 0.7)],
    ids=["M/M/1", "M/D/1", "M/M/5"],
)


def simulated_wait(service, servers, load, requests, seeds):
    runs = [waits_of(service, servers, load * servers, requests, seed)[1] for seed in seeds]
    return mean(mean(waits) for waits in runs)


@QUEUES
def test_the_simulation_is_near_the_closed_form(service, cv2, servers, load):
    found = simulated_wait(service, servers, load, 40_000, (1,))
    assert found == pytest.approx(mean_wait_s(servers, load * servers, 1.0, cv2), rel=0.08)


@pytest.mark.slow
@QUEUES
def test_the_simulation_is_the_closed_form_within_2_percent(service, cv2, servers, load):
    found = simulated_wait(service, servers, load, 400_000, (1, 2, 3))
    assert found == pytest.approx(mean_wait_s(servers, load * servers, 1.0, cv2), rel=0.02)


@pytest.mark.slow
def test_quantiles_of_the_simulated_wait():
    _, waits = waits_of(exponential, 5, 3.5, 400_000)
    found = sorted(waits)[int(0.95 * len(waits))]
    assert found == pytest.approx(wait_quantile_s(5, 3.5, 1.0, 1.0, 0.95), rel=0.03)


@given(
    st.integers(1, 6),
    st.floats(0.2, 2.0),
    st.integers(1, 200),
    st.integers(0, 10**6),
)
def test_every_request_is_served_once_in_time_and_no_server_twice_at_once(
    servers, load, requests, seed
):
    run = simulate([Kind("clip", 1.0, exponential)], servers, load * servers, requests, seed)
    assert len(run.done) == run.arrived == requests
    assert all(d.arrival_s <= d.start_s <= d.finish_s for d in run.done)
    for d in run.done:
        busy = sum(o.start_s <= d.start_s < o.finish_s for o in run.done)
        assert busy <= servers
    by_arrival = sorted(run.done, key=lambda d: d.arrival_s)
    starts = [d.start_s for d in by_arrival]
    assert starts == sorted(starts)  # first in, first out


def test_short_clips_first_wait_less_and_long_ones_more():
    def kinds(first):
        return [
            Kind("short", 0.5, lambda rng: 0.5, priority=0),
            Kind("long", 0.5, lambda rng: 1.5, priority=first),
        ]

    def waits(first):
        run = simulate(kinds(first), 3, 2.7, 40_000, seed=3)
        done = run.after(2_000)
        return [mean(d.wait_s for d in done if d.kind == kind) for kind in (0, 1)]

    together, apart = waits(0), waits(1)
    assert apart[0] < 0.5 * together[0]
    assert apart[1] > together[1]


def test_arrivals_follow_the_curve():
    hours = [0.5] * 12 + [1.5] * 12
    run = simulate([Kind("clip", 1.0, always)], 1000, 0.5, 86_400, seed=4, curve=hours)  # two days
    early = sum((d.arrival_s / 3600) % 24 < 12 for d in run.done) / len(run.done)
    assert early == pytest.approx(0.25, abs=0.02)
