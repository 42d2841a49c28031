"""Run a suite: ceilings, then points in order, within a time budget, resumable.  Needs no torch:
the worker has it."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench.core.errors import UserError
from bench.core.specs.point import Point
from bench.core.specs.recipe import Recipe
from bench.core.specs.suite import Sampling, Suite
from bench.measure.group.nodes import Nodes
from bench.measure.worker.process import JobFailed, Worker
from bench.measure.worker.protocol import MeasureCeilings
from bench.results.environment import Environment
from bench.results.records import FINISHED, CeilingsRecord
from bench.results.store import SUITE, Store, disk_faults, write_whole
from bench.run.budget import Budget
from bench.run.forecast import Forecaster
from bench.run.jobs import Job, ceilings_job, next_group, recipe_pairs, suite_jobs
from bench.run.record import Stopwatch, is_baseline
from bench.run.resume import check_environment, check_resume, say_what_starts_anew
from bench.run.runner import Runner
from bench.run.shards import jobs_here
from bench.run.user_code import check_user_code, check_weights

CEILINGS_SAMPLING = Sampling(
    target_relative_half_width=0.01, min_samples=7, max_samples=100, max_s=2.0
)
CEILINGS_TIMEOUT_S = 600.0


@dataclass(frozen=True, kw_only=True)
class SuiteRun:
    """A suite to be measured, and how."""

    suite: Suite
    device: str | None
    """cpu or cuda; None: the best that is here."""
    root: Path
    """Where results go."""
    resume: Path | None = None
    """A result to go on with."""
    mix_environments: bool = False
    """Go on although the environment differs; each record says where it was measured."""
    nodes: Nodes | None = None
    """That groups of ranks may span; None: this one."""
    budget_s: float | None = None
    forecast: Forecaster | None = None
    """Predicts each point, so that a budget leaves out what will not fit."""
    watch: Callable[[int, int, str], None] = lambda done, total, label: None
    """Called before each job and once at the end."""
    opened: Callable[[Path], None] = lambda directory: None
    """Called as soon as there is a directory."""

    def measure(self) -> Path:
        """Measure what is not measured yet -> the result directory.

        Raises UserError for a suite that cannot be run or a `resume` that does not fit;
        EnvironmentFault for a device or a disk that cannot be had.  On KeyboardInterrupt everything
        measured is on disk."""
        suite_jobs(self.suite)  # a mistake is said before a process starts
        budget = Budget(self.budget_s)
        with self.nodes or nullcontext(), self._worker() as worker:
            check_user_code(suite_jobs(self.suite), worker)
            jobs = jobs_here(self.suite, worker, worker.environment.device)
            if self.forecast is not None:
                self.forecast.begin(worker, jobs)
            directory = self.resume or new_directory(self.root, worker.environment, self.suite)
            if self.resume is not None:
                check_resume(directory, self.suite)
            with Store(directory) as store:
                runner = Runner(self.suite, worker, store, budget, self.forecast)
                todo = self._open(runner, jobs)
                self._carry_out(runner, todo, len(jobs))
        return directory

    def _worker(self) -> Worker:
        return Worker(self.device, threads=self.suite.threads, nodes=self.nodes)

    def _open(self, runner: Runner, jobs: list[Job]) -> list[Job]:
        """Take up what an earlier run left -> the jobs that are not finished."""
        store, environment = runner.store, runner.worker.environment
        before = store.records()
        check_environment(before, environment, store.directory, self.mix_environments)
        self.opened(store.directory)
        with disk_faults(store.directory):
            write_whole(store.directory / SUITE, self.suite.model_dump_json(indent=1))
        finished = {record.fingerprint for record in before if record.outcome in FINISHED}
        runner.prior = store.prior_samples(environment.digest())
        baselines = [record for record in before if is_baseline(record, environment)]
        runner.own = {Point.model_validate(r.point).subject: r for r in baselines}
        say_what_starts_anew(store.directory, jobs, finished, store, runner.prior)
        todo = [job for job in jobs if job.fingerprint not in finished]
        check_weights(todo)
        return todo

    def _carry_out(self, runner: Runner, todo: list[Job], total: int) -> None:
        """Measure the jobs in order; of those that may be in turns, as many as go together."""
        if self.budget_s is not None:
            # In order of value, and what is finished is finished.
            todo = [job.alone() for job in todo]
            if self.forecast is not None:
                todo = self.forecast.headline_first(todo, runner.worker, self.budget_s)
        while todo:
            group = next_group(todo)
            rest = todo[len(group) :]
            more = f" and {len(group) - 1} more, in turns" if len(group) > 1 else ""
            self.watch(total - len(todo), total, group[0].label + more)
            try:
                runner.run(group)
                todo = rest
            except JobFailed:  # of several in turns: each goes alone, and what was sampled counts
                todo = [job.alone() for job in group] + rest
                digest = runner.worker.environment.digest()
                runner.prior = runner.store.prior_samples(digest)
            runner.store.append_log(group[0].label, runner.worker.chatter())
        self.watch(total, total, "done")


def ceilings_only(
    worker: Worker,
    recipes: list[Recipe],
    sampling: Sampling,
    on_round: Callable[[str, list[float]], None],
) -> CeilingsRecord:
    """Measure ceilings without a result directory.  Raises JobFailed."""
    watch = Stopwatch()
    request = MeasureCeilings(recipes=recipe_pairs(recipes), sampling=sampling)
    reply = worker.run(request, CEILINGS_TIMEOUT_S, on_round)
    return CeilingsRecord(
        **watch.read(),
        fingerprint=ceilings_job(recipes).fingerprint,
        suite="ceilings",
        outcome="ok",
        reason=reply.left_out,
        environment=worker.environment,
        sentinel=reply.sentinel,
        probes=reply.probes,
        telemetry=reply.telemetry,
    )


def new_directory(root: Path, environment: Environment, suite: Suite) -> Path:
    """ROOT/<gpu>/<time>_<suite>/, made.  Raises UserError, EnvironmentFault."""
    stem = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}_{suite.name}"
    for suffix in ("", *(f"-{i}" for i in range(2, 100))):  # two runs may start in one second
        directory = root / environment.gpu / (stem + suffix)
        with disk_faults(directory, measured=False):
            directory.parent.mkdir(parents=True, exist_ok=True)
            try:
                directory.mkdir()
                return directory
            except FileExistsError:
                continue
    raise UserError(f"{root}: a hundred results of this second are there already")
