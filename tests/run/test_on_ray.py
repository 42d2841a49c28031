"""A suite on Ray: the hand-out on a simulated cluster, and a real one where Ray is installed."""

import heapq
import random
from types import SimpleNamespace

import pytest

from bench.core.errors import EnvironmentFault, UserError
from bench.results.store import Store, read_records
from bench.run.engines.on_ray import Group, RayPool, measure_on, parse_on
from bench.run.jobs import Job
from support.records import point_record

RECORD = point_record().model_dump_json()


class Home:
    """Keeps what came home."""

    def __init__(self):
        self.fingerprints: list[str] = []

    def append_record(self, record):
        self.fingerprints.append(record.fingerprint)


class ActorDied(Exception):
    """As Ray raises it."""


class SimulatedRay:
    """Actors whose calls take simulated seconds; some of the nodes die at a time of their own."""

    exceptions = SimpleNamespace(RayActorError=ActorDied)

    def __init__(self, actors: int, seconds: dict[str, float], deaths: dict[int, float]):
        self.now, self.seconds, self.deaths = 0.0, seconds, deaths
        self.ends: list[tuple[float, int]] = []
        self.calls: dict[int, tuple[int, list[Job]]] = {}
        self.actors = [self._actor(number) for number in range(actors)]

    def _actor(self, number: int):
        def remote(jobs: list[Job]) -> int:
            reference = len(self.calls)
            self.calls[reference] = number, jobs
            end = self.now + sum(self.seconds[job.fingerprint] for job in jobs)
            heapq.heappush(self.ends, (min(end, self.deaths.get(number, end)), reference))
            return reference

        return SimpleNamespace(measure=SimpleNamespace(remote=remote))

    def wait(self, references, num_returns, timeout):
        self.now, reference = heapq.heappop(self.ends)
        assert reference in references
        return [reference], []

    def get(self, reference):
        number, jobs = self.calls[reference]
        if self.now >= self.deaths.get(number, float("inf")):
            raise ActorDied(f"actor {number} is gone")
        return [
            RECORD.replace('"fingerprint":"p"', f'"fingerprint":"{job.fingerprint}"')
            for job in jobs
        ]


def sweep(points: int, rng: random.Random) -> dict[str, float]:
    return {f"{i:04}": rng.lognormvariate(3, 1) for i in range(points)}


def groups_of(seconds: dict[str, float]) -> list[Group]:
    return [Group([Job(name, name, None)], seconds=s) for name, s in seconds.items()]


@pytest.mark.parametrize("seed", range(2))
def test_a_thousand_points_on_a_hundred_actors_end_near_the_bound(seed):
    seconds = sweep(1000, random.Random(seed))
    ray = SimulatedRay(100, seconds, {})
    home = Home()
    measure_on(RayPool(ray, ray.actors), home, groups_of(seconds))
    bound = max(max(seconds.values()), sum(seconds.values()) / 100)
    assert ray.now <= 1.1 * bound
    assert sorted(home.fingerprints) == sorted(seconds)


@pytest.mark.parametrize("seed", range(2))
def test_no_point_is_lost_or_doubled_where_a_tenth_of_the_nodes_die(seed):
    rng = random.Random(seed)
    seconds = sweep(1000, rng)
    usual = sum(seconds.values()) / 100
    deaths = {number: rng.uniform(0, usual) for number in rng.sample(range(100), 10)}
    ray = SimulatedRay(100, seconds, deaths)
    pool = RayPool(ray, ray.actors)
    home = Home()
    measure_on(pool, home, groups_of(seconds))
    assert sorted(home.fingerprints) == sorted(seconds)
    assert pool.dead <= deaths.keys()


def test_each_cards_own_work_is_done_by_it_and_goes_with_it(tmp_path):
    seconds = {"anchor-0": 5.0, "anchor-1": 5.0, "a": 50.0, "b": 1.0}
    own = [Group([Job(f"anchor-{i}", "", None)], only=i) for i in (0, 1)]
    ray = SimulatedRay(2, seconds, {1: 2.0})
    with Store(tmp_path / "r") as store:
        measure_on(RayPool(ray, ray.actors), store, [*own, *groups_of({"a": 50.0, "b": 1.0})])
    assert [r.fingerprint for r in read_records(tmp_path / "r")] == ["anchor-0", "a", "b"]
    assert [number for number, jobs in ray.calls.values() if jobs[0].fingerprint == "a"] == [0]


def test_a_cluster_that_dies_whole_keeps_what_came_home(tmp_path):
    ray = SimulatedRay(1, {"a": 1.0, "b": 5.0}, {0: 5.5})
    with Store(tmp_path / "r") as store, pytest.raises(EnvironmentFault, match="1 of 2 jobs"):
        measure_on(RayPool(ray, ray.actors), store, groups_of({"a": 1.0, "b": 0.5}))
    assert [r.fingerprint for r in read_records(tmp_path / "r")] == ["a"]


def test_a_point_that_kills_its_actors_ends_the_run(tmp_path):
    ray = SimulatedRay(4, {"a": 1.0}, dict.fromkeys(range(4), 0.5))
    ray.deaths = {n: 0.5 * (n + 1) for n in range(4)}
    with Store(tmp_path / "r") as store, pytest.raises(EnvironmentFault, match="actors died of it"):
        measure_on(RayPool(ray, ray.actors), store, groups_of({"a": 1.0}))


@pytest.mark.parametrize("text", ["rai", "ray:", "ray://", "http://x", ""])
def test_an_engine_that_is_none(text):
    with pytest.raises(UserError, match="expected ray"):
        parse_on(text)


def test_addresses():
    assert parse_on("ray") is None
    assert parse_on("ray://head:10001") == "ray://head:10001"


@pytest.mark.slow
def test_a_real_cluster_loses_a_node_and_no_point(tmp_path):
    """Two nodes on this machine; the second is taken away after the first point came home."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    from bench.core.load import load
    from bench.core.specs.suite import Suite
    from bench.results.store import point_records
    from bench.run.engines.on_ray import RayRun
    from bench.run.jobs import suite_jobs

    suite = tmp_path / "mine.yaml"
    suite.write_text(REAL_SUITE)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    second = cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    lost = []

    def watch(done: int, total: int, label: str) -> None:
        if done >= 6 and not lost:
            lost.append(label)
            cluster.remove_node(second, allow_graceful=False)

    loaded = load(Suite, str(suite))
    run = RayRun(suite=loaded, device="cpu", address=None, root=tmp_path / "out", watch=watch)
    try:
        directory = run.measure()
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert lost
    wanted = {job.fingerprint for job in suite_jobs(loaded) if job.point is not None}
    records = [r for r in read_records(directory) if r.kind == "point" and r.fingerprint in wanted]
    assert sorted(r.fingerprint for r in records) == sorted(wanted)
    assert {r.outcome for r in point_records(records)} <= {"ok", "unstable"}


REAL_SUITE = """
description: five points
ceilings: false
threads: 1
sampling: {target_relative_half_width: 0.2, min_samples: 3, max_samples: 6, max_s: 0.3}
point_timeout_s: 60
dtype: fp32
points:
  - {model: tiny, workload: [tiny-image, tiny-clip, tiny-video], recipe: eager}
  - {model: [tiny-joint, tiny-cross], workload: tiny-clip, recipe: eager}
headline: {model: tiny, workload: tiny-clip, recipe: eager}
"""
