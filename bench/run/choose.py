"""Choose what to measure: counts from the worker, costs and rates from the forecast, the choice
from the cost model."""

from collections.abc import Callable, Sequence
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
    sigmas_of,
)
from bench.calibrate.fit import MODEL_ERROR
from bench.calibrate.pools import execution_of
from bench.core.errors import UserError
from bench.core.load import load, load_point, suite_points
from bench.core.presets import recipe_file
from bench.core.specs.point import Point
from bench.core.specs.recipe import Recipe
from bench.core.specs.suite import Suite, SuitePoints
from bench.measure.worker.process import Worker
from bench.results.video import calls_per_video
from bench.run.forecast import Forecaster
from bench.run.jobs import Job, suite_jobs

SWEEPS = 50  # without a plan, to compare with
NOISE = 0.01  # of a measured median, as a GPU's are; MODEL_ERROR comes on top


def suiting_recipe(suite: Suite, model: str, workload: str, overrides: dict[str, Any]) -> str:
    """The suite's first recipe that the model takes: its headline's, else one of its points'.

    Raises UserError, of the headline's, where none is."""
    of_points = (recipe for entry in suite.points for recipe in entry.recipe)
    first: UserError | None = None
    for recipe in dict.fromkeys((suite.headline.recipe, *of_points)):
        try:
            load_point(model, workload, recipe, overrides)
        except UserError as error:
            first = first or error
            continue
        return recipe
    assert first is not None
    raise first


def pool(suite: Suite, wanted: Recipe) -> list[SuitePoints]:
    """Every point of a suite at a recipe, or at one that runs at the same rates, as an entry of its
    own.  Raises UserError where there is none."""
    entries = [
        entry.model_copy(update={"model": (model,), "workload": (workload,), "recipe": (recipe,)})
        for entry in suite.points
        for recipe in entry.recipe
        if same_rates(load(Recipe, recipe), wanted)
        for model in entry.model
        for workload in entry.workload
    ]
    if not entries:
        known = sorted({r for entry in suite.points for r in entry.recipe})
        raise UserError(
            f"--recipe {wanted.name}: suite {suite.name} has no point of it; it has"
            f" {', '.join(known)}"
        )
    return entries


def same_rates(a: Recipe, b: Recipe) -> bool:
    """Do two recipes run at the same rates, so that a point of one tells of the other?"""
    return (a.dtype, a.attention) == (b.dtype, b.attention) and execution_of(
        a.model_dump(mode="json")
    ) == execution_of(b.model_dump(mode="json"))


def design(
    wanted: Sequence[Point],
    entries: list[SuitePoints],
    forecast: Forecaster,
    worker: Worker,
    budget_s: float,
    *,
    gpu: str | None,
    probe: bool,
    watch: Callable[[str, int], None],
) -> dict[str, Any] | None:
    """The chosen points in order, what each leaves of the predictions' uncertainty, and what a
    sweep without a plan would.

    watch: told what is counted or drawn, and how many of it are done.  None where nothing is known
    of the device."""
    points = [
        suite_points(forecast.suite.model_copy(update={"points": (entry,)}))[0] for entry in entries
    ]
    jobs = [Job(point.fingerprint, point.label, point) for point in points]
    targets = [Job(point.fingerprint, point.label, point) for point in wanted]
    forecast.begin(worker, [*jobs, *targets], gpu=gpu, probe=probe)
    basis = forecast.basis
    if basis is None:
        return None
    theta, ceilings = _state(forecast, wanted[0])
    if ceilings is None:
        return None
    spent_s = _ceilings_s(forecast, worker)
    candidates, which = _candidates(jobs, forecast, worker, watch)
    videos = [_video(target, forecast, worker) for target in targets]
    left_s = budget_s - spent_s
    chosen, before = choose(candidates, videos, theta, ceilings, left_s, NOISE)
    unplanned = _unplanned(candidates, videos, theta, ceilings, left_s, watch)
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
        "targets": _targets(
            targets, videos, [candidates[c.index] for c in chosen], theta, ceilings
        ),
        "ceilings_s": spent_s,
        "sigma_before": before,
        "sigma_after": chosen[-1].sigma if chosen else before,
        "sigma_unplanned": unplanned,
        "cheapest_s": spent_s + min((c.cost_s for c in candidates), default=0.0),
        "basis": basis.words,
        "provenance": "extrapolated" if not basis.fits else "fitted",
    }


def _unplanned(
    candidates: list[Candidate],
    videos: list[Work],
    theta: np.ndarray,
    ceilings: Ceilings,
    left_s: float,
    watch: Callable[[str, int], None],
) -> float:
    """The median of what sweeps without a plan leave."""
    rng, found = np.random.default_rng(0), []
    for i in range(SWEEPS):
        sweep = [candidates[k] for k in at_random(candidates, left_s, rng)]
        found.append(float(sigma_of(*_known(sweep, videos, theta, ceilings))))
        watch(f"drawing {SWEEPS} sweeps without a plan", i + 1)
    return float(np.median(found))


def _targets(
    targets: list[Job],
    videos: list[Work],
    chosen: list[Candidate],
    theta: np.ndarray,
    ceilings: Ceilings,
) -> list[dict[str, Any]]:
    """How well each wanted prediction is known before and after."""
    before = sigmas_of(*_known([], videos, theta, ceilings))
    after = sigmas_of(*_known(chosen, videos, theta, ceilings))
    return [
        {"point": target.label, "sigma_before": float(b), "sigma_after": float(a)}
        for target, b, a in zip(targets, before, after, strict=True)
    ]


def _ceilings_s(forecast: Forecaster, worker: Worker) -> float:
    """Seconds that the suite's ceilings take before any point."""
    job = next((job for job in suite_jobs(forecast.suite) if job.point is None), None)
    predicted = forecast.predict(job, worker) if job is not None else None
    return predicted.span.value if predicted else 0.0


def _candidates(
    jobs: list[Job], forecast: Forecaster, worker: Worker, watch: Callable[[str, int], None]
) -> tuple[list[Candidate], list[int]]:
    """The jobs that can be counted and predicted, and their places among all."""
    candidates, which = [], []
    for i, job in enumerate(jobs):
        assert job.point is not None
        stages = job.point.stages
        counts, predicted = forecast.count(job, worker), forecast.predict(job, worker)
        watch(f"counting {len(jobs)} points", i + 1)
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


def _known(
    measured: list[Candidate], videos: list[Work], theta: np.ndarray, ceilings: Ceilings
) -> tuple[np.ndarray, np.ndarray]:
    """-> the videos' sensitivities (t, p), and the precision once some points are measured."""
    precision = prior_precision()
    for candidate in measured:
        j = Priced(candidate.works, ceilings).slopes(theta) / np.hypot(MODEL_ERROR, NOISE)
        precision = precision + j.T @ j
    return Priced(videos, ceilings).slopes(theta), precision


def chosen_suite(
    suite: Suite, entries: list[SuitePoints], target: Point, document: dict[str, Any]
) -> str:
    """YAML of a suite with these points, whose headline is the first wanted prediction."""

    def entry(e: SuitePoints) -> dict[str, Any]:
        one = {
            "model": e.model[0],
            "workload": e.workload[0],
            "recipe": recipe_file(e.recipe[0])[0],
        }
        return e.model_dump(mode="json", exclude_defaults=True) | one

    headline, dtype = recipe_file(target.recipe.name)

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
            "headline": {
                "model": target.model.name,
                "workload": target.workload.name,
                "recipe": headline,
            },
        },
        sort_keys=False,
        width=120,
    )
