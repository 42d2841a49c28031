"""A suite on a Ray cluster: an actor for each GPU measures one group of jobs after another.

The driver hands groups out, the longest first, and appends records as they come home.  Where an
actor or its node dies, its group goes to another, MOST_TRIES times.  Each card measures the
ceilings and the anchors first, so that cards can be held against one another.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from bench.core.errors import EnvironmentFault, UserError
from bench.core.specs.suite import Suite
from bench.measure.worker.process import JobFailed, Worker
from bench.results.environment import Environment
from bench.results.records import FINISHED, CeilingsRecord, PointRecord, Record
from bench.results.store import SUITE, Store, disk_faults, write_whole
from bench.run.jobs import Job, next_group, suite_jobs
from bench.run.resume import check_environment, check_resume
from bench.run.runner import Runner
from bench.run.shards import anchor_jobs, fixed_seconds
from bench.run.suite import new_directory
from models.python.imports import handed_on
from models.real_weights import handed_on as of_weights

MOST_TRIES = 3
POLL_S = 5.0
RECORD: TypeAdapter[PointRecord | CeilingsRecord] = TypeAdapter(Record)
SCHEME = "ray"


@dataclass
class MemoryStore:
    """What a Runner needs of a store, until the records are home."""

    kept: list[PointRecord | CeilingsRecord] = field(default_factory=list)

    def records(self) -> list[PointRecord | CeilingsRecord]:
        return self.kept

    def append_record(self, record: PointRecord | CeilingsRecord) -> None:
        self.kept.append(record)

    def append_samples(self, *of_a_round: Any) -> None:
        """Rounds stay here: a group that was cut off is measured anew."""


class Measurer:
    """One GPU's side: holds a worker process, and measures what it is handed."""

    def __init__(self, suite: str, device: str | None):
        """suite: its JSON."""
        self.suite = Suite.model_validate_json(suite)
        self.worker = Worker(device, threads=self.suite.threads)

    def environment(self) -> str:
        return self.worker.environment.model_dump_json()

    def measure(self, jobs: list[Job]) -> list[str]:
        """The records of a group, as JSON."""
        store = MemoryStore()
        runner = Runner(self.suite, self.worker, store)  # type: ignore[arg-type]
        try:
            runner.run(jobs)
        except JobFailed:  # of several in turns: each goes alone
            for job in jobs:
                runner.run([job.alone()])
        return [record.model_dump_json() for record in store.kept]


@dataclass
class Group:
    """Jobs that one actor measures at once."""

    jobs: list[Job]
    seconds: float = 0.0
    """Of counted work, at fixed rates."""
    tries: int = 0
    only: int | None = None
    """The actor that must measure it: anchors and ceilings are each card's own."""


@dataclass
class RayPool:
    """The actors and what they are at.  ray: the module."""

    ray: Any
    actors: list[Any]
    busy: dict[Any, tuple[int, Group]] = field(default_factory=dict)
    """What a result is awaited from: the actor's number, and its group."""
    dead: set[int] = field(default_factory=set)

    @property
    def idle(self) -> list[int]:
        at_work = {number for number, _ in self.busy.values()}
        return [i for i in range(len(self.actors)) if i not in at_work and i not in self.dead]

    def hand_out(self, todo: deque[Group]) -> None:
        """One group to each idle actor, its own first."""
        for number in self.idle:
            group = next((g for g in todo if g.only in (None, number)), None)
            if group is None:
                continue
            todo.remove(group)
            self.busy[self.actors[number].measure.remote(group.jobs)] = number, group

    def finished(self) -> Iterator[tuple[Group, list[str] | None, str]]:
        """(group, records, "") of those that ended; (group, None, why) where the actor is gone."""
        ready, _ = self.ray.wait(list(self.busy), num_returns=1, timeout=POLL_S)
        for reference in ready:
            number, group = self.busy.pop(reference)
            try:
                yield group, self.ray.get(reference), ""
            except self.ray.exceptions.RayActorError as error:
                self.dead.add(number)
                yield group, None, str(error).splitlines()[0]


def connect(address: str | None) -> Any:
    """The ray module, connected: to a cluster's address, else a cluster of this machine.

    Raises EnvironmentFault where Ray is not installed or does not answer."""
    try:
        import ray
    except ImportError:
        raise EnvironmentFault("--on ray needs Ray: pip install 'ldt-bench[ray]'") from None
    try:
        if not ray.is_initialized():
            ray.init(address=address, log_to_driver=False, logging_level="error")
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise EnvironmentFault(f"--on ray: {str(error).splitlines()[0]}") from None
    return ray


def parse_on(text: str) -> str | None:
    """ "ray" -> None; "ray://head:10001" -> itself.  Raises UserError for another engine."""
    if text == SCHEME:
        return None
    if text.startswith(f"{SCHEME}://") and len(text) > len(SCHEME) + 3:
        return text
    raise UserError(f"--on {text!r}: expected ray, ray://HOST:PORT or slurm://PARTITION/SHARDS")


def start_actors(ray: Any, suite: Suite, device: str | None) -> RayPool:
    """One for each GPU of the cluster; without any, for each of its CPUs' shares.  Raises
    EnvironmentFault for a cluster without either."""
    there = ray.cluster_resources()
    gpus = int(there.get("GPU", 0)) if device != "cpu" else 0
    threads = suite.threads or 1
    count = gpus or int(there.get("CPU", 0)) // threads
    if not count:
        raise EnvironmentFault("--on ray: the cluster has neither a GPU nor a free CPU")
    needs = {"num_gpus": 1} if gpus else {"num_cpus": threads}
    actor = ray.remote(**needs, runtime_env={"env_vars": handed_on() | of_weights()})(Measurer)
    text = suite.model_dump_json()
    return RayPool(ray, [actor.remote(text, device) for _ in range(count)])


def measure_on(
    pool: RayPool,
    store: Store,
    groups: list[Group],
    watch: Callable[[int, int, str], None] = lambda done, total, label: None,
) -> None:
    """Measure the groups, each card's own first, then the longest, and append their records as they
    come.  Raises EnvironmentFault where no actor is left."""
    todo = deque(sorted(groups, key=lambda group: (group.only is None, -group.seconds)))
    total, done = sum(len(group.jobs) for group in todo), 0
    while todo or pool.busy:
        pool.hand_out(todo)
        if not pool.busy:
            raise EnvironmentFault(
                f"no actor is left: {total - done} of {total} jobs were not measured; what was"
                " measured is kept"
            )
        for group, records, why in pool.finished():
            if records is None:
                _again(group, todo, why)
                todo = deque(g for g in todo if g.only not in pool.dead)
                continue
            for text in records:
                store.append_record(RECORD.validate_json(text))
            done += len(group.jobs)
            watch(done, total, group.jobs[0].label)


@dataclass(frozen=True, kw_only=True)
class RayRun:
    """A suite on a cluster."""

    suite: Suite
    device: str | None
    address: str | None
    """ray://HOST:PORT; None: a cluster of this machine."""
    root: Path
    resume: Path | None = None
    mix_environments: bool = False
    """Go on although the environment differs."""
    watch: Callable[[int, int, str], None] = lambda done, total, label: None
    opened: Callable[[Path], None] = lambda directory: None

    def measure(self) -> Path:
        """Measure what is not measured yet -> the result directory.  Raises as SuiteRun.measure; on
        KeyboardInterrupt what came home is on disk, and --resume goes on."""
        jobs = suite_jobs(self.suite)
        ray = connect(self.address)
        pool = start_actors(ray, self.suite, self.device)
        try:
            environment = _first_environment(pool)
            directory = self.resume or new_directory(self.root, environment, self.suite)
            if self.resume is not None:
                check_resume(directory, self.suite)
            with Store(directory) as store:
                before = store.records()
                check_environment(before, environment, directory, self.mix_environments)
                self.opened(directory)
                with disk_faults(directory):
                    write_whole(directory / SUITE, self.suite.model_dump_json(indent=1))
                finished = {r.fingerprint for r in before if r.outcome in FINISHED}
                groups = self._groups(jobs, finished, len(pool.actors), environment.device)
                measure_on(pool, store, groups, self.watch)
        finally:
            for actor in pool.actors:
                ray.kill(actor)
        return directory

    def _groups(self, jobs: list[Job], finished: set[str], actors: int, device: str) -> list[Group]:
        """What is left to do, with counted seconds."""
        with Worker("cpu") as counter:
            seconds = fixed_seconds(self.suite, jobs, counter, device)
        todo = [job for job in jobs if job.fingerprint not in finished]
        own = [job for job in todo if job.point is None and job.ranks == 1]
        if actors > 1:
            anchors = anchor_jobs(self.suite, device)
            own += [job for job in anchors if job.fingerprint not in finished]
        groups = [Group([job], only=number) for number in range(actors) for job in own]
        rest = [job for job in todo if job not in own]
        while rest:
            group = next_group(rest)
            rest = rest[len(group) :]
            alone = [[job.alone()] for job in group] if actors > 1 else [group]
            groups += [Group(each, seconds=_of(each, seconds)) for each in alone]
        return groups


def _of(jobs: list[Job], seconds: dict[str, float]) -> float:
    return sum(seconds.get(job.fingerprint, 0.0) for job in jobs)


def _first_environment(pool: RayPool) -> Environment:
    text = pool.ray.get(pool.actors[0].environment.remote())
    return Environment.model_validate_json(text)


def _again(group: Group, todo: deque[Group], why: str) -> None:
    """To another actor; one card's own work goes with its card.  Raises EnvironmentFault after so
    many tries."""
    group.tries += 1
    if group.tries >= MOST_TRIES:
        raise EnvironmentFault(
            f"{group.jobs[0].label}: {MOST_TRIES} actors died of it ({why}); what was measured is"
            " kept"
        )
    if group.only is None:
        todo.appendleft(group)
