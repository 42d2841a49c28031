"""An estimate: seconds, minutes of video per GPU-hour, dollars and kWh for any model x workload,
from a calibration.

The interval joins the bootstrap draws of the parameters with the held-out residuals: 90 %.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from bench.calibrate.calibration import Calibration, Fit
from bench.calibrate.cost.parameters import NAMES, PARAMETERS
from bench.calibrate.cost.seconds import Priced, seconds_by_class
from bench.calibrate.cost.work import Work
from bench.calibrate.fitting.accuracy import INTERVAL
from bench.core.errors import UserError
from bench.core.quantity import Quantity
from bench.core.specs.gpu import Gpu
from bench.core.specs.point import Point
from bench.core.units import plain, si
from bench.count.fits import fits_memory
from bench.results.counts import StageCount
from bench.results.video import (
    calls_per_video,
    kwh_per_minute,
    minutes_per_gpu_hour,
    usd_per_minute,
)

UNRELIABLE = 0.5  # mean held-out error over which a prediction warns


@dataclass(frozen=True)
class Estimate:
    """A predicted point."""

    gpu: str
    step_s: Quantity
    video_s: Quantity
    """One batch of videos: all steps, decode, text."""
    stages: dict[str, Quantity]
    """Seconds of denoise (all steps), vae_decode, text_encode."""
    step_s_by_class: dict[str, float]
    """By bench.calibrate.cost.work.CLASSES: they sum to step_s."""
    minutes_per_gpu_hour: Quantity
    usd_per_minute: Quantity | None
    kwh_per_minute: Quantity | None
    fits_memory: bool | None
    provenance: Literal["fitted", "extrapolated"]
    warnings: list[str]
    heldout_error: dict[str, float] | None
    """Leave-one-out mean and worst of the calibration's denoise steps."""


def predict(
    point: Point,
    counts: dict[str, StageCount],
    params: dict[str, int],
    calibration: Calibration,
    fit: Fit,
    gpu: Gpu | None,
) -> Estimate:
    """Estimate a point from its counts.  `gpu` gives memory, price and power, where it is known.

    Raises UserError where the point needs a class of work that no measured point had."""
    workload = point.workload
    theta = {name: p.value for name, p in fit.parameters.items()}
    calls = calls_per_video(workload, counts)
    works = {stage: Work.of(counts[stage]) for stage in calls}
    try:
        by_class = {
            stage: seconds_by_class(work, theta, fit.device) for stage, work in works.items()
        }
    except ValueError as error:
        raise UserError(
            f"model {point.model.name} needs {error} work, which no measured point of recipe"
            f" {fit.recipe} had; add a stage with it to the suite {calibration.suite} and run it"
        ) from None
    stage_draws = draw_seconds({stage: work * calls[stage] for stage, work in works.items()}, fit)
    values = {stage: calls[stage] * sum(by_class[stage].values()) for stage in works}
    video, video_draws = sum(values.values()), sum(stage_draws.values())
    step = quantity(values["denoise_step"], stage_draws["denoise_step"]).scaled(1 / workload.steps)
    minutes = quantity(
        minutes_per_gpu_hour(workload, video), minutes_per_gpu_hour(workload, 1.0) / video_draws
    )
    warnings = (
        _range_warnings(point, counts, fit) + _bound_warnings(fit) + _belief_warnings(works, fit)
    )
    fits = fits_memory(point, counts, params, gpu.memory_bytes if gpu else None)
    if fits is False:
        warnings.append(
            f"does not fit {gpu.name}'s memory: weights and a step's activations are more"
        )
    warnings += decode_warning(counts, gpu.memory_bytes if gpu else None)
    kwh = _energy(point, calls, values, stage_draws, calibration, fit, warnings)
    return Estimate(
        gpu=calibration.gpu,
        step_s=step,
        video_s=quantity(video, video_draws),
        stages={_STAGE_NAMES[s]: quantity(values[s], stage_draws[s]) for s in calls},
        step_s_by_class=by_class["denoise_step"],
        minutes_per_gpu_hour=minutes,
        usd_per_minute=usd_per_minute(minutes, gpu.price_usd_per_hour if gpu else None),
        kwh_per_minute=kwh,
        fits_memory=fits,
        provenance="extrapolated" if _range_warnings(point, counts, fit) else "fitted",
        warnings=warnings,
        heldout_error=(
            {"mean": fit.leave_one_out.mean, "worst": fit.leave_one_out.worst}
            if fit.leave_one_out
            else None
        ),
    )


def draw_seconds(works: dict[str, Work], fit: Fit) -> dict[str, np.ndarray]:
    """Draws of the seconds of each work, for intervals: each draw of the parameters meets each
    held-out residual.

    A residual is common to all works, as a disturbed machine or a wrong rate would be; so is the
    factor of a card, where several were measured."""
    priced, spread = Priced(works.values(), fit.device), np.exp(np.array(fit.residuals or [0.0]))
    drawn = np.array([priced.seconds(np.array(draw)) for draw in fit.draws])
    spread = np.outer(spread, fit.card_draws).ravel()
    return {name: np.outer(drawn[:, i], spread).ravel() for i, name in enumerate(works)}


_STAGE_NAMES = {
    "denoise_step": "denoise",
    "vae_decode": "vae_decode",
    "condition_encode": "condition_encode",
    "text_encode": "text_encode",
}


def decode_warning(counts: dict[str, StageCount], memory: int | None) -> list[str]:
    """Warns where the VAE cannot decode the clip under this recipe; its predicted time is then that
    of the work alone."""
    peak = counts["vae_decode"].bytes_peak_activations
    if memory is None or peak <= memory:
        return []
    return [
        f"vae_decode needs {peak / 1e9:.0f} GB beside its weights; its time here is that of its"
        " work alone, and a recipe with a smaller vae_chunk or a vae_tile would fit"
    ]


def quantity(value: float, draws: np.ndarray) -> Quantity:
    """A value with the 90 % interval of its draws."""
    low, high = np.percentile(draws, INTERVAL)
    return Quantity(value, min(float(low), value), max(float(high), value))


def dimensions(tokens: int, counts: dict[str, StageCount]) -> dict[str, float]:
    """The sizes that a calibration spans, of the stages that are given."""
    step, decode = counts.get("denoise_step"), counts.get("vae_decode")
    out = {}
    if step is not None:
        out = {
            "tokens": float(tokens),
            "step_flops": float(step.flops),
            "attention_share": step.attention_flops / step.flops,
        }
    if decode is not None:
        out["decode_flops"] = float(decode.flops)
    return out


def shown(name: str, value: float) -> str:
    """A dimension as people write it: 184,320 tokens; 16.3 PFLOP a step."""
    return {
        "tokens": f"{value:,.0f} tokens",
        "step_flops": f"{si(value, 'FLOP')} a step",
        "attention_share": f"attention's share of FLOPs {value:.0%}",
        "decode_flops": f"{si(value, 'FLOP')} a decode",
    }[name]


def _range_warnings(point: Point, counts: dict[str, StageCount], fit: Fit) -> list[str]:
    """Says in which dimension, and by how much, the point lies outside the measured range."""
    out = []
    for name, value in dimensions(point.model.tokens(point.workload), counts).items():
        span = fit.ranges.get(name)
        if span is not None and span.high and value > 1.1 * span.high:
            out.append(
                f"extrapolated: {shown(name, value)}, {plain(value / span.high)} times the largest"
                " measured"
            )
        elif span is not None and 0 < value < span.low / 1.1:
            out.append(
                f"extrapolated: {shown(name, value)}, {plain(span.low / value)} times under the"
                " smallest measured"
            )
    return out


def _belief_warnings(works: dict[str, Work], fit: Fit) -> list[str]:
    """Names the parameters that the point needs and that the measured points do not determine."""
    needed = frozenset().union(*(work.classes for work in works.values()))
    if "small_conv" in needed and fit.device.small_conv_flops_per_s is None:
        needed = (needed - {"small_conv"}) | {"conv"}
    if fit.device.fresh_bytes_per_s is None:
        needed -= {"fresh"}
    held = [
        name
        for name in NAMES
        if PARAMETERS[name].needs in needed and not fit.parameters[name].identified
    ]
    return (
        [
            "too few points to determine these parameters; they stay near their prior:"
            f" {', '.join(held)}"
        ]
        if held
        else []
    )


def _bound_warnings(fit: Fit) -> list[str]:
    stuck = [name for name, p in fit.parameters.items() if p.at_bound]
    out = [f"fitted parameter at its bound: {', '.join(stuck)}"] if stuck else []
    if fit.leave_one_out is not None and fit.leave_one_out.mean > UNRELIABLE:
        out.append(
            f"held-out error {fit.leave_one_out.mean:.0%} on average: this calibration does not"
            " describe the device; measure again on a quiet machine"
        )
    return out + ([] if fit.converged else ["the fit did not converge"])


def _energy(
    point: Point,
    calls: dict[str, int],
    values: dict[str, float],
    draws: dict[str, np.ndarray],
    calibration: Calibration,
    fit: Fit,
    warnings: list[str],
) -> Quantity | None:
    """kWh a minute of video: each stage's measured energy x its calls where this very point has
    one, else the mean power that was measured for the stage (else for the denoise step) x its
    predicted seconds."""
    measured = {
        s.stage: s.energy_j
        for s in fit.stages
        if s.energy_j is not None and s.subject == point.subject
    }
    joules, joule_draws = 0.0, np.zeros_like(next(iter(draws.values())))
    for stage, n in calls.items():
        power = calibration.stage_power_w.get(stage, calibration.power_w)
        if stage in measured:
            joules, joule_draws = joules + n * measured[stage], joule_draws + n * measured[stage]
        elif power is not None:
            joules, joule_draws = joules + power * values[stage], joule_draws + power * draws[stage]
        else:
            warnings.append(
                f"no energy: neither energy nor power of {stage} was measured on this device"
            )
            return None
    return kwh_per_minute(quantity(joules, joule_draws), point.workload.video_s)
