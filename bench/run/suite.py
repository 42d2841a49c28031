"""Run a suite: ceilings, then points in order, within a time budget, resumable.  Needs no torch:
the worker has it."""

import dataclasses
import itertools
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench.core.errors import UserError
from bench.core.load import expand, headline_point, suite_points
from bench.core.specs.base import fingerprint
from bench.core.specs.point import Point
from bench.core.specs.recipe import Recipe
from bench.core.specs.suite import Sampling, Suite
from bench.count.closed.dit import dit_forward
from bench.count.touched import untouched
from bench.measure.timing.sampling import fewest_calls, unstable_reason
from bench.measure.worker.process import JobFailed, Worker
from bench.results.environment import Environment, cards_in
from bench.results.records import FINISHED, CeilingsRecord, PointRecord, Reused
from bench.results.store import SUITE, Store, disk_faults, write_whole
from bench.run.forecast import Forecaster
from models.spec import DiTConfig

CEILINGS_SAMPLING = Sampling(
    target_relative_half_width=0.01, min_samples=7, max_samples=100, max_s=2.0
)
CEILINGS_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Job:
    """One line of records.jsonl to come."""

    fingerprint: str
    label: str
    point: Point | None
    """None for the ceilings."""
    together: bool = False
    """Measured in turns with the jobs beside it that are too."""
    baseline: Point | None = None
    """What the point is measured in turns with, and its output held against."""


def suite_jobs(suite: Suite) -> list[Job]:
    """Ceilings first, then the points.  Raises UserError for an entry that cannot be run."""
    points = expand(suite)
    recipes = _recipes([p.point for p in points])
    headline = headline_point(suite)
    if headline.recipe.name not in {p.point.recipe.name for p in points}:
        raise UserError(
            f"suite {suite.name}: headline.recipe {headline.recipe.name} is measured by none of its"
            " points"
        )
    jobs = [
        Job(
            p.point.fingerprint,
            p.point.label,
            p.point,
            p.together and p.baseline is None,
            p.baseline,
        )
        for p in points
    ]
    if suite.ceilings:
        jobs.insert(0, Job(fingerprint({"ceilings": recipes}), "ceilings", None))
    return jobs


def run_suite(
    suite: Suite,
    *,
    device: str | None,
    root: Path,
    resume: Path | None,
    budget_s: float | None,
    mix_environments: bool = False,
    watch: Callable[[int, int, str], None] = lambda done, total, label: None,
    opened: Callable[[Path], None] = lambda directory: None,
    forecast: Forecaster | None = None,
) -> Path:
    """Measure what is not measured yet -> the result directory.

    watch(done, total, label) is called before each job and once at the end; opened(directory) as
    soon as there is one. mix_environments: --resume may go on elsewhere; each record says where it
    was measured. forecast: predicts each point, so that a budget leaves out what will not fit.

    Raises UserError for a suite that cannot be run or a --resume that does not fit;
    EnvironmentFault for a device or a disk that cannot be had.  On KeyboardInterrupt everything
    measured is on disk."""
    jobs = suite_jobs(suite)
    started = time.monotonic()
    with Worker(device) as worker:
        environment = worker.environment
        if forecast is not None:
            forecast.begin(worker, jobs)
        directory = resume or _new_directory(root, environment, suite)
        if resume is not None:
            _check_resume(resume, suite, jobs)
        with Store(directory) as store:
            before = store.records()
            _check_environment(before, environment, directory, mix_environments)
            opened(directory)
            _write_suite(directory, suite)
            finished = {r.fingerprint for r in before if r.outcome in FINISHED}
            prior = store.prior_samples(environment.digest())
            _say_what_starts_anew(directory, jobs, finished, store, prior)
            todo = [job for job in jobs if job.fingerprint not in finished]
            if budget_s is not None:  # in order of value, and what is finished is finished
                todo = [dataclasses.replace(job, together=False) for job in todo]
            if forecast is not None and budget_s is not None:
                todo = forecast.headline_first(todo, worker, budget_s)
            rates: list[float] = []  # FLOP/s of the denoise steps so far, for the budget
            own = {
                Point.model_validate(r.point).subject: r
                for r in before
                if _is_baseline(r, environment)
            }
            while todo:
                group = _next_group(todo)
                watch(
                    len(jobs) - len(todo),
                    len(jobs),
                    group[0].label
                    + (f" and {len(group) - 1} more, in turns" if len(group) > 1 else ""),
                )
                left = None if budget_s is None else budget_s - (time.monotonic() - started)
                if len(group) > 1:
                    records = _run_together(group, suite, worker, store, prior, left)
                else:
                    records = [
                        _run_job(
                            group[0],
                            suite,
                            worker,
                            store,
                            prior.get(group[0].fingerprint, {}),
                            left,
                            rates,
                            forecast,
                            own,
                        )
                    ]
                for job, record in zip(group, records, strict=False):
                    store.append_record(record)
                    if job.point is not None and _is_baseline(record, worker.environment):
                        own[job.point.subject] = record
                    if forecast is not None:
                        forecast.note(job, record, worker)
                store.append_log(group[0].label, worker.chatter())
                if records:
                    todo = todo[len(group) :]
                else:  # what does not go together goes alone, and what was sampled so far counts
                    todo = [dataclasses.replace(job, together=False) for job in group] + todo[
                        len(group) :
                    ]
                    prior = store.prior_samples(worker.environment.digest())
            watch(len(jobs), len(jobs), "done")
    return directory


def _next_group(todo: list[Job]) -> list[Job]:
    """The first job, and where it may be measured in turns those after it that may be too."""
    return list(itertools.takewhile(lambda job: job.together, todo)) or todo[:1]


def _run_together(
    group: list[Job],
    suite: Suite,
    worker: Worker,
    store: Store,
    prior: dict[str, dict[str, list[float]]],
    left: float | None,
) -> list[PointRecord]:
    """Records of all, or none where they cannot be measured together."""
    started, started_utc = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    request = {
        "job": "together",
        "points": [job.point.model_dump(mode="json") for job in group if job.point],
        "prior": [prior.get(job.fingerprint, {}) for job in group],
        "sampling": suite.sampling.model_dump(mode="json"),
    }
    timeout = suite.point_timeout_s * len(group)

    def on_round(key: str, samples: list[float]) -> None:
        index, _, stage = key.partition("/")
        store.append_samples(
            group[int(index)].fingerprint, stage, samples, worker.environment.digest()
        )

    try:
        result = worker.run(request, timeout if left is None else min(timeout, left), on_round)
    except JobFailed:
        return []
    wall_s = round((time.monotonic() - started) / len(group), 3)
    return [
        _point_record(
            job.point,
            fields,
            sentinel=result["sentinel"],
            fingerprint=job.fingerprint,
            suite=suite.name,
            started_utc=started_utc,
            wall_s=wall_s,
            outcome="ok",
            reason=result.get("note"),
            environment=worker.environment,
        )
        for job, fields in zip(group, result["points"], strict=True)
        if job.point is not None
    ]


def _run_job(
    job: Job,
    suite: Suite,
    worker: Worker,
    store: Store,
    prior: dict[str, list[float]],
    left: float | None,
    rates: list[float],
    forecast: Forecaster | None = None,
    own: Mapping[str, PointRecord] | None = None,
) -> PointRecord | CeilingsRecord:
    started, started_utc = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    request = {
        "job": "ceilings" if job.point is None else "point",
        "prior": prior,
        "sampling": suite.sampling.model_dump(mode="json"),
        **(
            {"recipes": _recipes(suite_points(suite))}
            if job.point is None
            else {"point": job.point.model_dump(mode="json")}
        ),
        **(
            {"baseline": job.baseline.model_dump(mode="json"), "reused": _reused(job, own or {})}
            if job.baseline is not None
            else {}
        ),
    }
    result: dict[str, Any] = {}
    outcome, reason = "ok", None
    skip = _over_budget(job, left, rates, worker, forecast, suite.sampling)
    if skip:
        outcome, reason = "skipped_budget", skip
    else:
        limit = forecast.time_limit(job, worker) if forecast is not None else suite.point_timeout_s
        timeout = limit if left is None else min(limit, left)
        try:
            result = worker.run(
                request,
                timeout,
                lambda stage, samples: store.append_samples(
                    job.fingerprint, stage, samples, worker.environment.digest()
                ),
            )
            reason = result.get("left_out") or result.get("note")
        except JobFailed as failure:
            outcome, reason, result = failure.outcome, failure.reason, dict(failure.fields)
            if outcome == "timeout" and timeout < limit:
                outcome, reason = (
                    "skipped_budget",
                    f"cut off when the budget was up, after {timeout:.0f} s",
                )
    common = {
        "fingerprint": job.fingerprint,
        "suite": suite.name,
        "started_utc": started_utc,
        "wall_s": round(time.monotonic() - started, 3),
        "outcome": outcome,
        "reason": reason,
        "environment": worker.environment,
        "sentinel": result.get("sentinel"),
    }
    if job.point is None:
        return CeilingsRecord(
            **common, probes=result.get("probes", []), telemetry=result.get("telemetry")
        )
    if job.baseline is not None and "against" not in result:
        result["against"] = {
            "baseline": job.baseline.recipe.name,
            "point": job.baseline.model_dump(mode="json"),
            "in_turns": False,
            "reason": None,
            "timings": {},
            "divergence": None,
            "divergence_missing": f"{outcome}: {reason}",
        }
    record = _point_record(job.point, result, **common)
    if record.outcome == "ok" and "denoise_step" in record.timings:
        rates.append(record.counts["denoise_step"].flops / record.timings["denoise_step"].median_s)
    return record


def _is_baseline(record: PointRecord | CeilingsRecord, now: Environment) -> bool:
    """Was it measured by itself, here and well?  Its stages then stand for those of a recipe that
    leaves them as they are."""
    return (
        isinstance(record, PointRecord)
        and record.outcome == "ok"
        and record.against is None
        and record.environment.digest() == now.digest()
    )


def _reused(job: Job, own: Mapping[str, PointRecord]) -> dict[str, Any]:
    """The stages that a job's recipe leaves as its baseline's own point had them, for the worker
    and the record."""
    assert job.point is not None
    assert job.baseline is not None
    record = own.get(job.baseline.subject)
    if record is None:
        return {}
    found = {}
    for stage in untouched(job.point, job.baseline, record.counts):
        if stage in record.timings:
            seen = (record.telemetry or {}).get(stage)
            memory = record.memory.by_stage.get(stage) if record.memory else None
            found[stage] = Reused(
                timing=record.timings[stage],
                energy_j=seen.energy.energy_j if seen and seen.energy else None,
                peak_allocated=memory.peak_allocated if memory else None,
            ).model_dump(mode="json")
    return found


def _point_record(point: Point, result: dict[str, Any], **common: Any) -> PointRecord:
    record = PointRecord(
        **common,
        model=point.model.name,
        workload=point.workload.name,
        recipe=point.recipe.name,
        point=point.model_dump(mode="json"),
        tokens=point.model.tokens(point.workload),
        counts=result.get("counts", {}),
        timings=result.get("timings", {}),
        memory=result.get("memory"),
        telemetry=result.get("telemetry"),
        against=result.get("against"),
        attention_ran=result.get("attention_ran"),
        correctness=result.get("correctness"),
    )
    timings = dict(record.timings)
    if record.against is not None:
        timings |= {
            f"baseline's {stage}": timing for stage, timing in record.against.timings.items()
        }
    unstable = [reason for item in timings.items() if (reason := unstable_reason(*item))]
    if record.outcome == "ok" and unstable:
        return record.model_copy(
            update={
                "outcome": "unstable",
                "reason": "; ".join(filter(None, [record.reason, *unstable])),
            }
        )
    return record


def ceilings_only(
    worker: Worker,
    recipes: list[Recipe],
    sampling: Sampling,
    on_round: Callable[[str, list[float]], None],
) -> CeilingsRecord:
    """Measure ceilings without a result directory.  Raises JobFailed."""
    started, started_utc = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    pairs = list(dict.fromkeys((r.dtype, r.attention) for r in recipes))
    result = worker.run(
        {
            "job": "ceilings",
            "prior": {},
            "recipes": pairs,
            "sampling": sampling.model_dump(mode="json"),
        },
        CEILINGS_TIMEOUT_S,
        on_round,
    )
    left_out = result.pop("left_out")
    return CeilingsRecord(
        fingerprint=fingerprint({"ceilings": pairs}),
        suite="ceilings",
        started_utc=started_utc,
        wall_s=round(time.monotonic() - started, 3),
        outcome="ok",
        reason=left_out,
        environment=worker.environment,
        **result,
    )


def _over_budget(
    job: Job,
    left: float | None,
    rates: list[float],
    worker: Worker,
    forecast: Forecaster | None,
    sampling: Sampling,
) -> str | None:
    """Why a job is not started: no time is left, it is predicted to take more, or where nothing
    predicts it, the fewest calls it takes would not fit at the best rate so far."""
    if left is None:
        return None
    if left <= 0:
        if forecast is not None:
            forecast.predict(job, None)  # to say what was left out; no time is spent on a count
        return "the budget is spent"
    if forecast is not None and (why := forecast.over(job, worker, left)):
        return why
    if job.point is None or not rates or "denoise_step" not in job.point.stages:
        return None
    model, workload = job.point.model, job.point.workload
    if isinstance(model.denoiser, DiTConfig):
        flops = workload.forwards_per_step * sum(
            dit_forward(model.denoiser, model.latent_shape(workload), workload.batch).values()
        )
    else:  # a public class has no closed form, and this process has no torch
        step = forecast.count(job, worker).get("denoise_step") if forecast is not None else None
        flops = step.flops if step else 0
    call_s = flops / max(rates)
    least = fewest_calls(call_s, sampling) * call_s
    return (
        f"would take at least {least:.0f} s, {left:.0f} s of the budget are left"
        if least > left
        else None
    )


def _recipes(points: list[Point]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((p.recipe.dtype, p.recipe.attention) for p in points))


def _new_directory(root: Path, environment: Environment, suite: Suite) -> Path:
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


def _write_suite(directory: Path, suite: Suite) -> None:
    with disk_faults(directory):
        write_whole(directory / SUITE, suite.model_dump_json(indent=1))


def _check_resume(directory: Path, suite: Suite, jobs: list[Job]) -> None:
    """A suite may have grown since, and nothing else: what is measured must still be part of it, in
    the same way."""
    path = directory / SUITE
    if not path.is_file():
        raise UserError(
            f"--resume {directory}: no {SUITE} in it, so `ldt-bench run` did not make it"
        )
    try:
        before = Suite.model_validate_json(path.read_bytes())
    except ValidationError:
        raise UserError(
            f"--resume {directory}: {SUITE} is damaged, or was written by another version"
        ) from None
    if before.name != suite.name:
        raise UserError(f"--resume {directory}: it holds suite {before.name}, not {suite.name}")
    if before.sampling != suite.sampling:
        raise UserError(
            f"--resume {directory}: suite {suite.name} sampled otherwise then; start a new result"
        )
    known = {job.fingerprint for job in jobs}
    gone = [job.label for job in suite_jobs(before) if job.fingerprint not in known]
    if gone:
        raise UserError(
            f"--resume {directory}: suite {suite.name} had"
            f" {', '.join(gone[:3])}{f' and {len(gone) - 3} more' if len(gone) > 3 else ''} then,"
            " and has not now; start a new result"
        )


def _check_environment(
    records: list[PointRecord | CeilingsRecord], now: Environment, directory: Path, mix: bool
) -> None:
    """Every environment among the records must be this one, but for the code and for which card of
    the same kind it is, unless mixing was asked for."""
    unlike = list(dict.fromkeys(d for r in records for d in r.environment.differences(now)))
    versions = [d for d in unlike if d.startswith("code_version")]
    if unlike != versions and not mix:
        raise UserError(
            f"--resume {directory}: measured elsewhere or otherwise: {'; '.join(unlike)}; "
            "start a new result instead of mixing the two (or tell it to, with --mix-environments)"
        )
    if unlike != versions:
        warnings.warn(
            f"{directory}: environments are mixed in it: {'; '.join(unlike)}; each record says its"
            " own, and `calibrate` refuses records of several devices",
            stacklevel=2,
        )
    elif versions:
        warnings.warn(
            f"{directory}: measured with another version of ldt-bench: {versions[0]}", stacklevel=2
        )
    if cards := cards_in([*(r.environment for r in records), now]):
        warnings.warn(
            f"{directory}: measured on {cards}; this is {now.device_uuid_hash}, and each record"
            " says its own",
            stacklevel=2,
        )


def _say_what_starts_anew(
    directory: Path,
    jobs: list[Job],
    finished: set[str],
    store: Store,
    prior: dict[str, dict[str, list[float]]],
) -> None:
    """Samples of another card, or of other code, are not continued: a record's are all of one
    environment."""
    begun = store.prior_samples()
    anew = [
        job.label
        for job in jobs
        if job.fingerprint not in finished
        and job.fingerprint in begun
        and job.fingerprint not in prior
    ]
    if anew:
        more = f" and {len(anew) - 1} more" if len(anew) > 1 else ""
        warnings.warn(
            f"{directory}: {anew[0]}{more}: begun on another card or with other code, and measured"
            " anew here",
            stacklevel=2,
        )
