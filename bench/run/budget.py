"""A run's time budget: what is left of it, and what is not begun for want of time."""

import time
from dataclasses import dataclass, field

from bench.core.specs.suite import Sampling
from bench.count.closed.dit import dit_forward
from bench.measure.timing.sampling import fewest_calls
from bench.measure.worker.process import Worker
from bench.run.forecast import Forecaster
from bench.run.jobs import Job
from models.spec import DiTConfig


@dataclass
class Budget:
    """Seconds for a run from its start; None for no limit."""

    total_s: float | None
    started_s: float = field(default_factory=lambda: time.monotonic())

    @property
    def left_s(self) -> float | None:
        if self.total_s is None:
            return None
        return self.total_s - (time.monotonic() - self.started_s)


def over_budget(
    job: Job,
    left_s: float | None,
    rates: list[float],
    worker: Worker,
    forecast: Forecaster | None,
    sampling: Sampling,
) -> str | None:
    """Why a job is not started: no time is left, it is predicted to take more, or where nothing
    predicts it, the fewest calls it takes would not fit at the best rate so far.

    rates: FLOP/s of the denoise steps so far."""
    if left_s is None:
        return None
    if left_s <= 0:
        if forecast is not None:
            forecast.predict(job, None)  # to say what was left out; no time is spent on a count
        return "the budget is spent"
    if forecast is not None and (why := forecast.over(job, worker, left_s)):
        return why
    if job.point is None or not rates or "denoise_step" not in job.point.stages:
        return None
    call_s = _step_flops(job, worker, forecast) / max(rates)
    least_s = fewest_calls(call_s, sampling) * call_s
    if least_s <= left_s:
        return None
    return f"would take at least {least_s:.0f} s, {left_s:.0f} s of the budget are left"


def _step_flops(job: Job, worker: Worker, forecast: Forecaster | None) -> int:
    """FLOPs of one step; 0 where they are not known."""
    assert job.point is not None
    model, workload = job.point.model, job.point.workload
    if isinstance(model.denoiser, DiTConfig):
        forward = dit_forward(model.denoiser, model.latent_shape(workload), workload.batch)
        return workload.forwards_per_step * sum(forward.values())
    # A public class has no closed form, and this process has no torch.
    step = forecast.count(job, worker).get("denoise_step") if forecast is not None else None
    return step.flops if step else 0
