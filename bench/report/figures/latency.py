"""Seconds of a forward of the denoiser against tokens."""

import matplotlib as mpl
import matplotlib.pyplot as plt

from bench.calibrate.calibration import Fit
from bench.report.figures.drawing import (
    COLOURS,
    GREY,
    INK,
    MARKERS,
    Drawing,
    error_bars,
    legend_below,
    literal,
    log_axis,
    samples_of,
)
from bench.report.result import Result
from bench.results.records import PointRecord

MAX_FAMILIES = 6
"""Models in one legend; the others share a grey marker."""


def latency_vs_tokens(result: Result) -> Drawing | None:
    """One denoiser forward against tokens: as measured, by the cost model, and by one MFU for all
    FLOPs."""
    steps = [r for r in result.points if "denoise_step" in r.timings]
    if not steps:
        return None
    families: dict[str, list[PointRecord]] = {}
    for r in sorted(steps, key=lambda r: r.tokens):
        batch = r.point["workload"].get("batch", 1)
        name = r.model if len({s.recipe for s in steps}) == 1 else f"{r.model}, {r.recipe}"
        families.setdefault(name + (f", batch {batch}" if batch != 1 else ""), []).append(r)
    ordered = sorted(families.items(), key=lambda item: -len(item[1]))
    figure, axes = plt.subplots(figsize=(5.2, 4.4))
    for i, (name, members) in enumerate(ordered):
        alone = i < MAX_FAMILIES or len(ordered) == MAX_FAMILIES + 1
        colour = COLOURS[i % len(COLOURS)] if alone else GREY
        label = (
            literal(name)
            if alone
            else f"{len(ordered) - MAX_FAMILIES} other models"
            if i == MAX_FAMILIES
            else None
        )
        _latency(
            axes, members, result.fits, colour, MARKERS[i % len(MARKERS)] if alone else ".", label
        )
    line = mpl.lines.Line2D
    handles, _ = axes.get_legend_handles_labels()
    if result.fits:
        handles += [
            line([], [], color=INK, marker="_", ms=8, label="cost model (fitted)"),
            line([], [], color=INK, ls=":", marker="x", ms=4, label="one MFU for all (fitted)"),
        ]
    axes.set(xlabel="tokens of one sample", ylabel="one forward of the denoiser")
    axes.margins(0.08)
    log_axis(axes.xaxis)
    log_axis(axes.yaxis, "s")
    legend_below(figure, handles)
    told = (
        " Solid lines and dashes: the cost model; dotted lines and crosses: the baseline of one"
        " rate for all FLOPs (both fitted on the same points)."
        if result.fits
        else ""
    )
    return Drawing(
        figure,
        "Seconds of one forward of the denoiser against tokens. Markers: measured medians with"
        f" their intervals, {samples_of(r.timings['denoise_step'] for r in steps)}.{told}",
    )


def _latency(
    axes: plt.Axes,
    members: list[PointRecord],
    fits: list[Fit],
    colour: str,
    marker: str,
    label: str | None,
) -> None:
    tokens = [r.tokens for r in members]
    forwards = [2 if r.point["workload"]["guidance"] == "cfg" else 1 for r in members]
    value, low, high = (
        [
            getattr(r.timings["denoise_step"], end) / f
            for r, f in zip(members, forwards, strict=True)
        ]
        for end in ("median_s", "low_s", "high_s")
    )
    axes.errorbar(
        tokens,
        value,
        yerr=error_bars(value, low, high),
        ls="",
        marker=marker,
        color=colour,
        label=label,
        zorder=3,
    )
    by_point = {
        s.point: (
            s.fitted_s,
            s.flops / fit.constant_mfu_flops_per_s if fit.constant_mfu_flops_per_s else None,
        )
        for fit in fits
        for s in fit.stages
        if s.stage == "denoise_step"
    }
    told = [
        (r.tokens, *(s / f if s else None for s in by_point[r.label]))
        for r, f in zip(members, forwards, strict=True)
        if r.label in by_point
    ]
    if told:
        x, model, baseline = zip(*told, strict=True)
        axes.plot(x, model, color=colour, marker="_", ms=9, lw=1)
        if None not in baseline:
            axes.plot(x, baseline, color=colour, ls=":", marker="x", ms=4, lw=1)
