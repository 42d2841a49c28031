"""A suite's jobs, handed to the worker one by one or in turns, and written down as they come."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.core.load import suite_points
from bench.core.specs.suite import Suite
from bench.count.touched import untouched
from bench.measure.worker.process import JobFailed, Worker
from bench.measure.worker.protocol import (
    CeilingsReply,
    MeasureCeilings,
    MeasureLinks,
    MeasurePoint,
    MeasureTogether,
    PointReply,
    Samples,
)
from bench.results.records import CeilingsRecord, PointRecord, Reused
from bench.results.store import Store
from bench.run.budget import Budget, over_budget
from bench.run.forecast import Forecaster
from bench.run.foresight import Foresight
from bench.run.jobs import Job, recipe_pairs
from bench.run.record import Stopwatch, is_baseline, not_compared, point_record


@dataclass
class Runner:
    """What the jobs of one run share."""

    suite: Suite
    worker: Worker
    store: Store
    budget: Budget = field(default_factory=lambda: Budget(None))
    forecast: Forecaster | None = None
    prior: Mapping[str, Samples] = field(default_factory=dict)
    """Samples of an earlier run that count, by fingerprint."""
    own: dict[str, PointRecord] = field(default_factory=dict)
    """Points that were measured by themselves here, by subject: baselines of others."""
    foresee: Foresight = field(default_factory=Foresight)
    """Predicts a point on several ranks before its turn."""
    rates: list[float] = field(default_factory=list)
    """FLOP/s of the denoise steps so far."""

    def run(self, group: list[Job]) -> None:
        """Measure a job, or several in turns, and keep their records.

        Raises JobFailed where several cannot be measured in turns; each may go alone then."""
        records = self.together(group) if len(group) > 1 else [self.alone(group[0])]
        for job, record in zip(group, records, strict=True):
            self._keep(job, record)

    def together(self, group: list[Job]) -> list[PointRecord]:
        """Records of jobs that are measured in turns.  Raises JobFailed."""
        watch, left_s = Stopwatch(), self.budget.left_s
        points = [job.point for job in group if job.point is not None]
        request = MeasureTogether(
            points=points,
            prior=[self.prior.get(job.fingerprint, {}) for job in group],
            sampling=self.suite.sampling,
        )

        def on_round(key: str, samples: list[float]) -> None:
            index, _, stage = key.partition("/")
            self._save(group[int(index)])(stage, samples)

        limit_s = self.suite.point_timeout_s * len(group)
        timeout_s = limit_s if left_s is None else min(limit_s, left_s)
        reply = self.worker.run(request, timeout_s, on_round)
        common = {
            **watch.read(shared_by=len(group)),
            "suite": self.suite.name,
            "outcome": "ok",
            "reason": reply.note,
            "environment": self.worker.environment,
            "sentinel": reply.sentinel,
        }
        return [
            point_record(point, answer, fingerprint=job.fingerprint, **common)
            for job, point, answer in zip(group, points, reply.points, strict=True)
        ]

    def alone(self, job: Job) -> PointRecord | CeilingsRecord:
        """The record of one job, however it ends."""
        predicted, predicted_missing = self.foresee(job, self.store, self.worker)
        watch = Stopwatch()
        outcome, reason, reply = self._outcome(job)
        common = {
            **watch.read(),
            "fingerprint": job.fingerprint,
            "suite": self.suite.name,
            "outcome": outcome,
            "reason": reason,
            "environment": self.worker.environment,
            "sentinel": reply.sentinel,
        }
        if isinstance(reply, CeilingsReply):
            ranks = None if job.ranks == 1 else job.ranks
            return CeilingsRecord(
                **common,
                ranks=ranks,
                nodes=1 if ranks is None else self.worker.nodes_of(job.ranks),
                probes=reply.probes,
                telemetry=reply.telemetry,
            )
        assert job.point is not None
        if job.baseline is not None and reply.against is None:
            missing = not_compared(job.baseline, f"{outcome}: {reason}")
            reply = reply.model_copy(update={"against": missing})
        common |= {"predicted": predicted, "predicted_missing": predicted_missing}
        return point_record(job.point, reply, **common)

    def _outcome(self, job: Job) -> tuple[str, str | None, PointReply | CeilingsReply]:
        """(outcome, reason, what the worker answered; an empty reply where it did not)."""
        nothing = CeilingsReply() if job.point is None else PointReply()
        left_s = self.budget.left_s
        skip = over_budget(job, left_s, self.rates, self.worker, self.forecast, self.suite.sampling)
        if skip:
            return "skipped_budget", skip, nothing
        limit_s = self.suite.point_timeout_s
        if self.forecast is not None:
            limit_s = self.forecast.time_limit(job, self.worker)
        timeout_s = limit_s if left_s is None else min(limit_s, left_s)
        try:
            reply = self.worker.run(self._request(job), timeout_s, self._save(job))
        except JobFailed as failure:
            if failure.outcome == "timeout" and timeout_s < limit_s:
                cut_off = f"cut off when the budget was up, after {timeout_s:.0f} s"
                return "skipped_budget", cut_off, nothing
            if failure.correctness is not None:
                nothing = PointReply(correctness=failure.correctness)
            return failure.outcome, failure.reason, nothing
        reason = reply.left_out if isinstance(reply, CeilingsReply) else reply.note
        return "ok", reason, reply

    def _request(self, job: Job) -> MeasurePoint | MeasureCeilings | MeasureLinks:
        prior, sampling = self.prior.get(job.fingerprint, {}), self.suite.sampling
        if job.point is None:
            recipes = [point.recipe for point in suite_points(self.suite)]
            how = {"sampling": sampling, "prior": prior}
            if job.ranks == 1:
                return MeasureCeilings(recipes=recipe_pairs(recipes), **how)
            meshes = [r for r in recipes if r.parallel and r.parallel.ranks == job.ranks]
            return MeasureLinks(ranks=job.ranks, recipes=recipe_pairs(meshes), **how)
        return MeasurePoint(
            point=job.point,
            sampling=sampling,
            prior=prior,
            baseline=job.baseline,
            reused=self._reused(job),
        )

    def _reused(self, job: Job) -> dict[str, Reused]:
        """The stages that a job's recipe leaves as its baseline's own point had them."""
        record = self.own.get(job.baseline.subject) if job.baseline is not None else None
        if record is None:
            return {}
        stages = untouched(job.point, job.baseline, record.counts)
        return {s: _reading(record, s) for s in stages if s in record.timings}

    def _save(self, job: Job) -> Callable[[str, list[float]], None]:
        """Appends a job's rounds to samples.jsonl."""

        def on_round(stage: str, samples: list[float]) -> None:
            environment = self.worker.environment.digest()
            self.store.append_samples(job.fingerprint, stage, samples, environment)

        return on_round

    def _keep(self, job: Job, record: PointRecord | CeilingsRecord) -> None:
        self.store.append_record(record)
        if job.point is not None and is_baseline(record, self.worker.environment):
            self.own[job.point.subject] = record
        if self.forecast is not None:
            self.forecast.note(job, record, self.worker)
        timings: Mapping[str, Any] = getattr(record, "timings", {})
        if record.outcome == "ok" and "denoise_step" in timings:
            flops = record.counts["denoise_step"].flops
            self.rates.append(flops / timings["denoise_step"].median_s)


def _reading(record: PointRecord, stage: str) -> Reused:
    """What a baseline's own point reads for one stage."""
    seen = (record.telemetry or {}).get(stage)
    memory = record.memory.by_stage.get(stage) if record.memory else None
    return Reused(
        timing=record.timings[stage],
        energy_j=seen.energy.energy_j if seen and seen.energy else None,
        peak_allocated=memory.peak_allocated if memory else None,
    )
