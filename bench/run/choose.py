"""Choose what to measure: counts from the worker, costs and rates from the forecast, the choice
from the cost model."""

from collections.abc import Callable
from typing import Any

import numpy as np
import yaml

from bench.calibrate.calibration import feeds_fit
from bench.calibrate.cost.ceilings import Ceilings
from bench.calibrate.cost.parameters import NAMES, PARAMETERS, PRIOR
from bench.calibrate.cost.seconds import Priced
from bench.calibrate.cost.work import Work
from bench.calibrate.design import (
    Candidate,
    at_random,
    choose,
    prior_precision,
    sigma_of,
)
from bench.calibrate.fit import MODEL_ERROR
from bench.core.errors import UserError
from bench.core.load import suite_points
from bench.core.presets import recipe_file
from bench.core.specs.point import Point
from bench.core.specs.suite import Suite, SuitePoints
from bench.measure.worker.process import Worker
from bench.results.video import calls_per_video
from bench.run.forecast import Forecaster
from bench.run.jobs import Job, suite_jobs

SWEEPS = 50  # without a plan, to compare with
NOISE = 0.01  # of a measured median, as a GPU's are; MODEL_ERROR comes on top


def pool(suite: Suite, recipe: str) -> list[SuitePoints]:
    """Every point of a suite at a recipe, as an entry of its own.  Raises UserError where there is
    none."""
    entries = [
        entry.model_copy(update={"model": (model,), "workload": (workload,), "recipe": (recipe,)})
        for entry in suite.points
        if recipe in entry.recipe
        for model in entry.model
        for workload in entry.workload
    ]
    if not entries:
        known = sorted({r for entry in suite.points for r in entry.recipe})
        raise UserError(
            f"--recipe {recipe}: suite {suite.name} has no point of it; it has {', '.join(known)}"
        )
    return entries


def design(
    wanted: Point,
    entries: list[SuitePoints],
    forecast: Forecaster,
    worker: Worker,
    budget_s: float,
    *,
    gpu: str | None,
    probe: bool,
    watch: Callable[[int], None],
) -> dict[str, Any] | None:
    """The chosen points in order, what each leaves of the prediction's uncertainty, and what a
    sweep without a plan would.

    None where nothing is known of the device."""
    points = [
        suite_points(forecast.suite.model_copy(update={"points": (entry,)}))[0] for entry in entries
    ]
    jobs = [Job(point.fingerprint, point.label, point) for point in points]
    target = Job(wanted.fingerprint, wanted.label, wanted)
    forecast.begin(worker, [*jobs, target], gpu=gpu, probe=probe)
    basis = forecast.basis
    if basis is None:
        return None
    theta, ceilings = _state(forecast, wanted)
    if ceilings is None:
        return None
    spent_s = _ceilings_s(forecast, worker)
    candidates, which = _candidates(jobs, forecast, worker, watch)
    video = _video(target, forecast, worker)
    left_s = budget_s - spent_s
    chosen, before = choose(candidates, video, theta, ceilings, left_s, NOISE)
    rng = np.random.default_rng(0)
    sweeps = [at_random(candidates, left_s, rng) for _ in range(SWEEPS)]
    unplanned = [_sigma(sweep, candidates, video, theta, ceilings) for sweep in sweeps]
    return {
        "points": [
            {
                "index": which[c.index],
                "point": candidates[c.index].label,
                "predicted_s": candidates[c.index].cost_s,
                "spent_s": spent_s + c.spent_s,
                "sigma": c.sigma,
            }
            for c in chosen
        ],
        "ceilings_s": spent_s,
        "sigma_before": before,
        "sigma_after": chosen[-1].sigma if chosen else before,
        "sigma_unplanned": float(np.median(unplanned)),
        "cheapest_s": spent_s + min((c.cost_s for c in candidates), default=0.0),
        "basis": basis.words,
        "provenance": "extrapolated" if not basis.fits else "fitted",
    }


def _ceilings_s(forecast: Forecaster, worker: Worker) -> float:
    """Seconds that the suite's ceilings take before any point."""
    job = next((job for job in suite_jobs(forecast.suite) if job.point is None), None)
    predicted = forecast.predict(job, worker) if job is not None else None
    return predicted.span.value if predicted else 0.0


def _candidates(
    jobs: list[Job], forecast: Forecaster, worker: Worker, watch: Callable[[int], None]
) -> tuple[list[Candidate], list[int]]:
    """The jobs that can be counted and predicted, and their places among all."""
    candidates, which = [], []
    for i, job in enumerate(jobs):
        assert job.point is not None
        stages = job.point.stages
        counts, predicted = forecast.count(job, worker), forecast.predict(job, worker)
        watch(i + 1)
        works = tuple(Work.of(counts[s]) for s in stages if feeds_fit(s) and s in counts)
        if predicted is not None and set(stages) <= set(counts) and works:
            candidates.append(Candidate(job.label, works, predicted.span.value))
            which.append(i)
    return candidates, which


def _video(target: Job, forecast: Forecaster, worker: Worker) -> Work:
    """The work of the wanted video.  Raises UserError where it cannot be counted."""
    counts = forecast.count(target, worker)
    if not counts:
        raise UserError(f"{target.label} cannot be counted; `ldt-bench count` says why")
    assert target.point is not None
    calls = calls_per_video(target.point.workload, counts)
    works = [Work.of(counts[stage]) * n for stage, n in calls.items()]
    return sum(works[1:], works[0])


def _state(forecast: Forecaster, wanted: Point) -> tuple[np.ndarray, Ceilings | None]:
    """Parameters and ceilings to plan with: the calibration's, else the priors at the datasheet or
    the probe."""
    basis, prior = forecast.basis, dict(zip(NAMES, PRIOR, strict=True))
    assert basis is not None
    fit = basis.fit_for(wanted)
    if fit is not None:
        values = prior | {
            name: p.value for name, p in fit.parameters.items() if p.value is not None
        }
        return np.array([values[name] for name in NAMES]), fit.device
    shares = basis.efficiencies
    values = prior | {name: shares[name] for name in shares if PARAMETERS[name].unit != "s"}
    return np.array([values[name] for name in NAMES]), basis.rates.get(wanted.recipe.dtype)


def _sigma(
    chosen: list[int],
    candidates: list[Candidate],
    wanted: Work,
    theta: np.ndarray,
    ceilings: Ceilings,
) -> float:
    precision = prior_precision()
    for i in chosen:
        j = Priced(candidates[i].works, ceilings).slopes(theta) / np.hypot(MODEL_ERROR, NOISE)
        precision = precision + j.T @ j
    return sigma_of(Priced([wanted], ceilings).slopes(theta)[0], precision)


def chosen_suite(suite: Suite, entries: list[SuitePoints], document: dict[str, Any]) -> str:
    """YAML of a suite with these points."""

    def entry(e: SuitePoints) -> dict[str, Any]:
        one = {
            "model": e.model[0],
            "workload": e.workload[0],
            "recipe": recipe_file(e.recipe[0])[0],
        }
        return e.model_dump(mode="json", exclude_defaults=True) | one

    headline, dtype = recipe_file(suite.headline.recipe)

    return yaml.safe_dump(
        {
            "description": (
                f"{len(entries)} points of {suite.name} that narrow {document['for']} most in "
                f"{document['budget_s']:.0f} s, by ldt-bench run --choose-for"
            ),
            "ceilings": suite.ceilings,
            "sampling": suite.sampling.model_dump(),
            "point_timeout_s": suite.point_timeout_s,
            "dtype": dtype,
            "points": [entry(e) for e in entries],
            "headline": suite.headline.model_dump() | {"recipe": headline},
        },
        sort_keys=False,
        width=120,
    )
