"""Predictions against measurements, and their error."""

import matplotlib.pyplot as plt

from bench.calibrate.calibration import FittedStage
from bench.report.figures.drawing import (
    GREY,
    INK,
    Drawing,
    error_bars,
    legend_below,
    log_axis,
    samples_of,
    stage_style,
)
from bench.report.result import Result
from bench.results.readings import Timing


def predicted_vs_measured(result: Result) -> Drawing | None:
    """Held-out predictions (or the fit, where no other point has that work) against measurements,
    and the error in per cent."""
    fit = result.fit
    if fit is None or not fit.stages:
        return None
    figure, (axes, below) = plt.subplots(2, figsize=(5.2, 4.9), height_ratios=(2.2, 1), sharex=True)
    shown = [t for s in fit.stages for t in (s.measured_s, _predicted_s(s))]
    # Both axes have the same ends, so that no prediction falls outside.
    ends = [min(shown) / 1.5, max(shown) * 1.5]
    axes.plot(ends, ends, color=INK, lw=0.8)
    axes.fill_between(
        ends,
        [0.9 * e for e in ends],
        [1.1 * e for e in ends],
        color=GREY,
        alpha=0.3,
        lw=0,
        label="±10 %",
    )
    below.axhspan(-10, 10, color=GREY, alpha=0.3, lw=0)
    below.axhline(0, color=INK, lw=0.8)
    timings = {(r.label, stage): t for r in result.points for stage, t in r.timings.items()}
    for stage in dict.fromkeys(s.stage for s in fit.stages):
        for held_out in (True, False):
            some = [
                s for s in fit.stages if s.stage == stage and (s.held_out_s is not None) == held_out
            ]
            if some:
                _draw_stage(axes, below, some, timings)
    axes.set(ylabel="predicted", xlim=ends, ylim=ends)
    below.set(xlabel="measured", ylabel="error (%)")
    log_axis(axes.yaxis, "s")
    log_axis(below.xaxis, "s")
    legend_below(figure)
    error = fit.leave_one_out
    words = (
        f" Denoise steps, leave one out: {100 * error.mean:.1f} % mean, {100 * error.worst:.1f} %"
        " worst."
        if error
        else ""
    )
    return Drawing(
        figure,
        f"Seconds of each stage of {fit.title}, predicted (fitted) against measured. Filled: by a"
        " fit that never saw the point; hollow: nothing else has that class of work, so the fit"
        " saw it. Horizontal bars: intervals of the measured medians,"
        f" {samples_of(timings.values())}.{words}",
    )


def _predicted_s(stage: FittedStage) -> float:
    return stage.fitted_s if stage.held_out_s is None else stage.held_out_s


def _draw_stage(
    axes: plt.Axes,
    below: plt.Axes,
    some: list[FittedStage],
    timings: dict[tuple[str, str], Timing],
) -> None:
    """Predictions of one stage, all held out or all not, and their errors below."""
    stage, held_out = some[0].stage, some[0].held_out_s is not None
    x, y = [s.measured_s for s in some], [_predicted_s(s) for s in some]
    known = [timings.get((s.point, s.stage)) for s in some]
    low = [t.low_s if t else v for t, v in zip(known, x, strict=True)]
    high = [t.high_s if t else v for t, v in zip(known, x, strict=True)]
    style = stage_style(stage) | ({} if held_out else {"mfc": "none"})
    words = f"{stage}, {'held out' if held_out else 'in the fit'} ({len(some)})"
    axes.errorbar(x, y, xerr=error_bars(x, low, high), ls="", elinewidth=0.8, label=words, **style)
    errors = [100 * (p / m - 1) for p, m in zip(y, x, strict=True)]
    below.plot(x, errors, ls="", **style)
