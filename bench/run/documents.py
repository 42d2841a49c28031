"""What a run says of its time: before it, as `run --dry-run`, and after it."""

from typing import Any

from bench.core.quantity import Quantity
from bench.core.specs.gpu import Price
from bench.measure.worker.process import Worker
from bench.run.forecast import Forecaster, too_long
from bench.run.jobs import Job
from bench.run.plan_time import NOTHING, usd


def plan_document(
    forecaster: Forecaster,
    jobs: list[Job],
    worker: Worker,
    gpu: str,
    price: Price | None,
    budget_s: float | None,
) -> dict[str, Any]:
    """`run --dry-run`: every job's time, their sum and its cost; with a budget, what would be left
    out."""
    points, skipped, total = [], [], forecaster.start_and_finish
    if budget_s is not None:
        jobs = forecaster.headline_first(jobs, worker, budget_s)
    left = None if budget_s is None else budget_s - total.low  # the start is in the budget
    unknown = []
    for job in jobs:
        forecast = forecaster.predict(job, worker)
        row = {
            "point": job.label,
            "stages": list(job.point.stages) if job.point else [],
            "predicted_s": forecast.span.value if forecast else None,
            "low_s": forecast.span.low if forecast else None,
            "high_s": forecast.span.high if forecast else None,
            "provenance": forecast.provenance if forecast else None,
            "note": _as_on_one_gpu(job) if forecast else None,
        }
        points.append(row)
        span = forecast.span if forecast else NOTHING
        if forecast is None:
            unknown.append(job.label)
        why = None
        if forecast is not None and left is not None:
            why = too_long(forecast, left, "would be left")
        if why is not None:
            skipped.append({"point": job.label, "predicted_s": span.value, "reason": why})
            continue
        total += span
        left = left - span.value if left is not None else None
    cost = usd(total, price)
    return {
        "dry_run": True,
        "suite": forecaster.suite.name,
        "gpu": gpu,
        "points": points,
        "skipped": skipped,
        "start_and_finish_s": forecaster.start_and_finish.value,
        "total_s": total.value,
        "total": total.as_dict(),
        "cost_usd": cost.as_dict() if cost else None,
        "price_usd_per_hour": price.model_dump() if price else None,
        "basis": (
            forecaster.basis.words if forecaster.basis else "none: nothing is known of this device"
        ),
        "unknown": unknown,
    }


def _as_on_one_gpu(job: Job) -> str | None:
    """Says that a mesh is not in a point's predicted time."""
    if job.point is None or not job.point.recipe.on_several_ranks:
        return None
    assert job.point.recipe.parallel is not None
    return f"as on one GPU; {job.point.recipe.parallel.words()} is not predicted"


def spent_document(forecaster: Forecaster, wall_s: float, price: Price | None) -> dict[str, Any]:
    """What a run took, beside what was predicted for what it did."""
    cost = usd(Quantity.exactly(wall_s), price)
    return {
        "wall_s": round(wall_s, 1),
        "usd": cost.as_dict() if cost else None,
        "predicted_s": forecaster.predicted_s(),
        "basis": forecaster.basis.words if forecaster.basis else None,
    }
