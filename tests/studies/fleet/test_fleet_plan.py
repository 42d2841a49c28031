"""From demand to GPUs: linear where it must be, smooth where clips are long."""

import json
from dataclasses import replace
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.core.errors import UserError
from bench.core.load import load
from bench.core.quantity import Quantity
from bench.core.specs.demand import Demand
from bench.core.specs.gpu import Gpu
from bench.studies.fleet.article import lines, product
from bench.studies.fleet.plan import (
    ClipCost,
    Server,
    fleet_of,
    meets,
    middle,
    offered,
    plan,
    smoothed,
)
from bench.studies.fleet.policies import check, compare
from bench.studies.fleet.tornado import tornado
from support.cli import cli


@pytest.fixture(scope="module")
def demand():
    return load(Demand, "uploads")


def server(seconds=720.0, gpus=1, spread=1.2, **fields):
    """A card that makes a minute of video in 720 s: five minutes an hour, as the article says."""
    service = Quantity(seconds, seconds / spread, seconds * spread)
    clips = (ClipCost("sora-1min-512", 1.0, 60.0, service),)
    known = {"how": "one card", "kwh_per_minute": None, "provenance": "fitted"}
    return Server(gpu=load(Gpu, "h100-sxm"), gpus=gpus, clips=clips, **known | fields)


def test_the_articles_numbers(demand):
    from bench.commands.studies.fleet import article as printed

    article = printed()
    gpus = article.gpus()
    assert gpus["busy all the time, the right sum"] == pytest.approx(124_600, rel=1e-3)
    assert gpus["with three times 2, as printed"] == pytest.approx(713_000, rel=1e-3)
    assert gpus["with three times 2, the right sum"] == pytest.approx(997_000, rel=1e-3)
    fleet = fleet_of(demand, server(), middle(demand))
    rows = lines(article, demand, server(), fleet)
    assert product(rows, "article") == pytest.approx(997_000, rel=1e-3)
    assert product(rows, "here") == pytest.approx(fleet.gpus, rel=1e-3)


def test_at_the_articles_rate_two_of_its_twos_are_not_needed(demand):
    """Five minutes an hour, its demand: a pool so large needs no half that idles."""
    fleet = fleet_of(demand, server(), middle(demand))
    assert fleet.busiest_utilisation > 0.99
    made = demand.candidates_per_upload.value * demand.retries.value
    assert fleet.gpus == pytest.approx(
        124_600 * made * max(demand.curve) / demand.availability.value, rel=0.02
    )


def test_ten_times_the_minutes_are_ten_times_the_gpus_and_a_bit_less(demand):
    at = middle(demand)
    few = fleet_of(demand, server(), replace(at, minutes_per_day=1e4))
    many = fleet_of(demand, server(), replace(at, minutes_per_day=1e5))
    assert 8.5 < many.gpus / few.gpus < 10
    assert many.utilisation > few.utilisation


def test_intervals_hold_the_value_and_follow_the_ranges(demand):
    planned = plan(demand, server())
    for q in (planned.gpus, planned.mean_gpus, planned.usd_per_day):
        assert q.low < q.value < q.high
    sharp = demand.model_copy(
        update={
            "candidates_per_upload": demand.candidates_per_upload.model_copy(
                update={"low": 2.0, "high": 2.0}
            )
        }
    )
    narrower = plan(sharp, server())
    assert narrower.gpus.high / narrower.gpus.low < planned.gpus.high / planned.gpus.low


def test_the_largest_swing_comes_first_and_each_holds_the_middle(demand):
    swings = tornado(demand, server())
    assert [s.factor for s in swings] == sorted((s.factor for s in swings), reverse=True)
    gpus = fleet_of(demand, server(), middle(demand)).gpus
    for swing in swings:
        low, high = sorted((swing.gpus_at_low, swing.gpus_at_high))
        assert low <= gpus <= high, swing.name
    assert swings[0].name == "candidates an upload"


CURVE = st.lists(st.floats(0.1, 3.0), min_size=24, max_size=168)


@given(CURVE, st.floats(0.0, 100.0))
def test_smoothing_keeps_the_mean_and_stays_within_the_curve(curve, hours):
    smooth = smoothed(curve, hours)
    assert min(curve) - 1e-6 <= min(smooth)
    assert max(smooth) <= max(curve) + 1e-6
    assert mean(smooth) == pytest.approx(mean(curve), rel=1e-6)


@given(CURVE)
def test_a_clip_as_long_as_the_curve_sees_its_mean_and_a_short_one_each_hour(curve):
    assert smoothed(curve, float(len(curve))) == pytest.approx([mean(curve)] * len(curve))
    assert smoothed(curve, 1e-4) == pytest.approx(curve, rel=1e-6)


def test_clips_of_hours_flatten_the_day(demand):
    short, long = (
        max(offered(demand, server(seconds), middle(demand))) for seconds in (60.0, 6 * 3600.0)
    )
    assert 1 < long < short == pytest.approx(max(demand.curve), rel=0.03)


@pytest.mark.parametrize("minutes", [1e17, 1e40, float("inf"), float("nan")])
def test_more_servers_than_erlangs_formula_can_count_are_refused(demand, minutes):
    at = replace(middle(demand), minutes_per_day=minutes)
    with pytest.raises(UserError, match="demand uploads: .* at most 1e.14 are planned"):
        fleet_of(demand, server(), at)
    fleet = fleet_of(demand, server(), replace(at, minutes_per_day=1e14))
    assert fleet.servers > fleet.mean_servers > 1e12


def test_what_no_server_can_meet_is_said(demand):
    strict = demand.model_copy(
        update={"objective": demand.objective.model_copy(update={"done_within_s": 300.0})}
    )
    assert not meets(plan(strict, server(720.0)))
    assert meets(plan(strict, server(120.0)))


def test_policies_have_a_front_and_waiting_costs_less_than_meshes(demand):
    startup = load(Demand, "startup")
    clips = tuple(
        ClipCost(c.workload, c.share, 5.0, Quantity.exactly(s))
        for c, s in zip(startup.clips, (100.0, 400.0), strict=True)
    )
    single = replace(server(), clips=clips)
    faster = tuple(replace(c, service_s=c.service_s.scaled(0.3)) for c in clips)
    mesh = replace(single, gpus=4, how="ulysses 4", clips=faster)
    outcomes = compare(startup, [single, mesh])
    front = [o for o in outcomes if o.on_front]
    assert {o.how for o in front} == {"one card", "ulysses 4"}
    night = min(outcomes, key=lambda o: o.gpus)
    assert "at night" in night.name
    assert not night.on_front  # of the deferred clips its latency says nothing
    for a in front:
        for b in front:
            assert (a.gpus - b.gpus) * (a.latency_s - b.latency_s) <= 0
    by_name = {o.name: o for o in outcomes}
    short, long = by_name["short first: short clips"], by_name["short first: long clips"]
    assert short.latency_s < long.latency_s
    assert short.by == "simulated"


def test_a_large_fleet_is_simulated_at_a_part_of_its_size(demand):
    found = check(demand, server(60.0))
    assert found.scale < 0.01
    assert found.servers < 400
    assert found.more_servers > 0
    assert found.simulated_s == pytest.approx(found.theory_s, abs=15.0)
    assert found.utilisation > 0.8


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"clips": [{"workload": "720p-81f", "share": 0.5}]}, "sum up to 0.5"),
        ({"hours": [1.0] * 23}, "hours"),
        ({"hours": [0.0] * 24}, "all are 0"),
        ({"retries": {"value": 1, "low": 2, "high": 3, "source": "x"}}, "is not from low 2"),
        ({"objective": {"share": 1.0, "starts_within_s": 60.0}}, "share"),
    ],
)
def test_a_wrong_demand_is_one_line(tmp_path, change, said):
    import yaml

    base = load(Demand, "uploads").model_dump(mode="json", exclude={"name"})
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(base | change))
    with pytest.raises(UserError, match=said) as caught:
        load(Demand, str(path))
    assert "\n" not in str(caught.value)


def test_the_command(tmp_path):
    out = tmp_path / "figures"
    done = cli(
        "fleet", "--gpu", "h100-sxm", "--minutes-per-day", "5000", "--out", str(out), "--json"
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    (planned,) = document["plans"]
    assert planned["gpus"]["low"] <= planned["gpus"]["value"] <= planned["gpus"]["high"]
    assert document["article"]["product"]["article"] == pytest.approx(997_000, rel=1e-3)
    assert document["simulation"]["requests"] == 30_000
    assert (out / "frontier.svg").is_file()
    assert (out / "tornado.png").is_file()


@pytest.mark.slow
def test_meshes_are_compared(tmp_path):
    asked = ("fleet", "startup", "-m", "wan2.1-t2v-1.3b", "--gpu", "b200", "--parallel", "auto")
    done = cli(*asked, "--done-within", "2m")
    assert done.returncode == 0, done.stderr
    assert "ulysses" in done.stdout or "cfg 2" in done.stdout
    assert "simulated by events" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("uplods",), "did you mean uploads?"),
        (("--gpu", "h100"), "h100-sxm"),
        (("--starts-within", "soon"), "--starts-within"),
        (("--parallel", "ulyses=2"), "ulysses"),
        (("--model", "videopoet-8b"), "auto-regressive"),
        (("--minutes-per-day", "nan"), "--minutes-per-day nan: expected 1 to 1e+12"),
        (("--minutes-per-day", "1e40"), "--minutes-per-day 1e+40: expected 1 to 1e+12"),
    ],
)
def test_mistakes_are_one_line(words, said):
    done = cli("fleet", *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
