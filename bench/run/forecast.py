"""Predict a suite's time: counts come from the worker (this process has no torch), rates from an
earlier result, a datasheet or a quick probe.  `run --dry-run` asks it for everything; `run
--budget` for each point before its turn.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.calibrate.read import read_calibration
from bench.core.errors import UserError
from bench.core.load import datasheet, headline_point, suite_points
from bench.core.quantity import Quantity
from bench.core.specs.point import Point
from bench.core.specs.suite import Suite
from bench.core.units import seconds
from bench.count.touched import built, untouched
from bench.measure.worker.process import JobFailed, Worker
from bench.measure.worker.protocol import CountPoint, CountReply, PlanProbes, ReadRates
from bench.results.counts import StageCount
from bench.results.records import PointRecord
from bench.results.video import MEASURED
from bench.run.basis import KNOWN, Basis, basis_from, latest_basis, probed_basis, sheet_basis
from bench.run.jobs import Job, recipe_pairs
from bench.run.plan_time import Forecast, ceilings_time, point_time, time_beside

COUNT_TIMEOUT_S = 300.0
# of the budget to count in, before anything is measured; what is measured is counted but once
LOOK_AHEAD_SHARE = 0.05
HEADLINE_SHARE = 0.5  # of the budget that the headline's point may take to be put first
TIMEOUT_FACTOR = 3.0  # of a point's predicted time, before it is taken for hung


@dataclass
class Forecaster:
    """Predictions of one suite's jobs, each made once.  `begin` finds what they rest on."""

    suite: Suite
    root: Path
    calibration: Path | None
    basis: Basis | None = None
    memory_bytes: int | None = None
    """Of the card that is planned for, where it is not the one here."""
    made: dict[str, Forecast | None] = field(default_factory=dict)
    counts: dict[str, dict[str, StageCount]] = field(default_factory=dict)
    weights: dict[str, int] = field(default_factory=dict)
    spent_on: list[Forecast | None] = field(default_factory=list)
    """Predictions of the jobs that this run carried out."""

    def begin(
        self, worker: Worker, jobs: list[Job], *, gpu: str | None = None, probe: bool = False
    ) -> None:
        """The calibration that was named, else the latest of this device, else its datasheet, else
        (probe) a quick look.

        gpu: plan for this card in the place of the one here.  Raises UserError for a calibration
        that cannot be read."""
        environment = worker.environment
        device = environment.device if gpu is None else "cpu" if gpu == "cpu" else "cuda"
        recipes = {job.point.recipe.name for job in jobs if job.point}
        if self.calibration is not None:
            theirs, ours = read_calibration(self.calibration).gpu, gpu or environment.gpu
            if theirs != ours:
                raise UserError(
                    f"--calibration {self.calibration}: measured on {theirs}, and the plan is for"
                    f" {ours}"
                )
            self.basis = basis_from(self.calibration, device)
        elif gpu is None:
            self.basis = latest_basis(
                self.root, environment.gpu, device, environment.device_name, recipes
            )
        sheet = datasheet(gpu or environment.gpu)
        self.memory_bytes = sheet.memory_bytes if gpu is not None and sheet is not None else None
        self.basis = self.basis or sheet_basis(sheet, device)
        if self.basis is None and probe:
            dtypes = list(dict.fromkeys(job.point.recipe.dtype for job in jobs if job.point))
            try:
                rates = worker.run(ReadRates(dtypes=dtypes), COUNT_TIMEOUT_S)
            except JobFailed:
                return  # a dtype that this device lacks: then nothing is known
            self.basis = probed_basis(rates.gemm_flops_per_s, rates.copy_bytes_per_s, device)

    @property
    def known(self) -> bool:
        """Does it rest on measurements of this device, so that a point may be left out for it?"""
        return self.basis is not None and bool(self.basis.fits)

    def predict(self, job: Job, worker: Worker | None) -> Forecast | None:
        """A job's forecast; None where nothing is known.  worker: to count with; None: only where
        no count is needed."""
        if self.basis is None:
            return None
        if job.fingerprint not in self.made:
            forecast = self._ceilings(worker) if job.point is None else self._point(job, worker)
            if forecast is None and worker is None:
                return None  # it may be asked again with one
            self.made[job.fingerprint] = forecast
        return self.made[job.fingerprint]

    def count(self, job: Job, worker: Worker) -> dict[str, StageCount]:
        """A point's counts; none where counting fails, which measuring it then says."""
        assert job.point is not None
        return self._count(job.point, worker)

    def _count(self, point: Point, worker: Worker) -> dict[str, StageCount]:
        if point.fingerprint not in self.counts:
            try:
                counted = worker.run(CountPoint(point=point), COUNT_TIMEOUT_S)
            except JobFailed:
                counted = CountReply()
            self.counts[point.fingerprint] = counted.counts
            self.weights[point.fingerprint] = counted.weights
        return self.counts[point.fingerprint]

    def over(self, job: Job, worker: Worker, left: float) -> str | None:
        """Why a job does not fit in what is left of the budget: by measurements of this device, or
        where even the low end of a rule of thumb is too long."""
        forecast = self.predict(job, worker) if job.point is not None else None
        return None if forecast is None else too_long(forecast, left, "are left")

    def time_limit(self, job: Job, worker: Worker) -> float:
        """Seconds after which a job is taken for hung: the suite's, or three times the prediction
        where that is more, so that a slow card still ends its calls.  This is the one rule; a
        budget alone may cut it shorter, and a job that does not fit in what is left is not begun
        (`over`)."""
        forecast = self.predict(job, worker)
        return max(
            self.suite.point_timeout_s, TIMEOUT_FACTOR * forecast.span.value if forecast else 0.0
        )

    def headline_first(self, jobs: list[Job], worker: Worker, budget_s: float) -> list[Job]:
        """The author's order of value, but for the headline's own point: it goes first (after the
        ceilings) where it is known to take no more than half of the budget."""
        if not self.known:
            return jobs
        self._look_ahead(jobs, worker, LOOK_AHEAD_SHARE * budget_s)
        subject = headline_point(self.suite).subject
        first = [job for job in jobs if job.point is not None and job.point.subject == subject]
        times = [self.predict(job, worker) for job in first]
        if not first or any(t is None or t.provenance not in KNOWN for t in times):
            return jobs
        if sum(t.span.value for t in times if t) > HEADLINE_SHARE * budget_s:
            return jobs
        ceilings = [job for job in jobs if job.point is None]
        return [
            *ceilings,
            *first,
            *(job for job in jobs if job not in first and job not in ceilings),
        ]

    def _look_ahead(self, jobs: list[Job], worker: Worker, most_s: float) -> None:
        """Predict in order while there is time for it, so that what is left out later has its
        seconds beside it."""
        started = time.monotonic()
        for job in jobs:
            if time.monotonic() - started > most_s:
                return
            self.predict(job, worker)

    def note(self, job: Job, record: Any, worker: Worker) -> None:
        """A job was carried out: keep what was, or would have been, said of it, by the counts that
        its record has.

        What failed took another time than anything predicts, and is left out."""
        if record.outcome not in MEASURED:
            return
        if (
            isinstance(record, PointRecord)
            and self.basis is not None
            and job.fingerprint not in self.made
        ):
            self.counts[job.fingerprint] = record.counts
            self.weights[job.fingerprint] = record.memory.weights if record.memory else 0
            self.made[job.fingerprint] = self._point(job, worker)
        self.spent_on.append(self.predict(job, worker))

    def predicted_s(self) -> float | None:
        """Of the jobs that were carried out, start and finish included; None where one has no
        prediction."""
        if None in self.spent_on:
            return None
        return self.start_and_finish.value + sum(f.span.value for f in self.spent_on if f)

    @property
    def start_and_finish(self) -> Quantity:
        """Beside the jobs."""
        return (self.basis or Basis("", "cpu")).start_and_finish

    def skipped(self, records: list[Any]) -> list[dict[str, Any]]:
        """What the budget left out, with predicted seconds where they are known."""
        last = {r.fingerprint: r for r in records}.values()
        made = {fingerprint: f.span.value for fingerprint, f in self.made.items() if f}
        return [
            {"point": r.label, "predicted_s": made.get(r.fingerprint), "reason": r.reason}
            for r in last
            if r.outcome == "skipped_budget"
        ]

    def _point(self, job: Job, worker: Worker | None) -> Forecast | None:
        assert job.point is not None
        assert self.basis is not None
        baseline = job.baseline
        if baseline is None:
            return self._alone(job.point, worker)
        if worker is None:
            return None
        counts, theirs = self._count(job.point, worker), self._count(baseline, worker)
        stages = next(
            (p.stages for p in suite_points(self.suite) if p.subject == baseline.subject), ()
        )
        reused = [stage for stage in untouched(job.point, baseline, theirs) if stage in stages]
        parts = built(job.point, reused)
        self._count(parts, worker)
        return time_beside(
            job.point,
            baseline,
            reused,
            counts,
            theirs,
            self.weights[parts.fingerprint],
            self.suite.sampling,
            self.basis,
        )

    def _alone(self, point: Point, worker: Worker | None) -> Forecast | None:
        assert self.basis is not None
        if set(point.stages) <= set(self.basis.measured.get(point.fingerprint, {})):
            return point_time(point, {}, 0, self.suite.sampling, self.basis)  # no count is needed
        if worker is None:
            return None
        counts = self._count(point, worker)
        return point_time(
            point, counts, self.weights[point.fingerprint], self.suite.sampling, self.basis
        )

    def _ceilings(self, worker: Worker | None) -> Forecast | None:
        assert self.basis is not None
        probes: list[Any] = []
        if self.basis.ceilings_s is None:
            if worker is None:
                return None
            request = PlanProbes(
                device=self.basis.device,
                recipes=recipe_pairs(point.recipe for point in suite_points(self.suite)),
                memory_bytes=self.memory_bytes,
            )
            try:
                probes = worker.run(request, COUNT_TIMEOUT_S).probes
            except JobFailed:
                return None
        return ceilings_time(probes, self.suite.sampling, self.basis)


def too_long(forecast: Forecast, left: float, what_is: str) -> str | None:
    """Why a job is left out; None where it fits."""
    if forecast.least_s <= left:
        return None
    least = "" if forecast.provenance in KNOWN else f", at the least {seconds(forecast.least_s)}"
    return (
        f"predicted to take {seconds(forecast.span.value)} ({forecast.provenance}){least},"
        f" {seconds(max(0.0, left))} of the budget {what_is}"
    )
