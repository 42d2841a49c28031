"""The figures of a report, each from a Result: what is drawn, and what its caption says.

A figure is one function, Result -> Drawing or None where there is nothing to draw, and one line in
`save_all`.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt

from bench.calibrate.calibration import Fit
from bench.core.units import seconds
from bench.report.figures import chain, device
from bench.report.figures.ablations import ablations
from bench.report.figures.drawing import (
    COLOURS,
    FOR_PRINT,
    FORMATS,
    GREY,
    HATCHES,
    INK,
    MARKERS,
    STAGES,
    STYLE,
    Drawing,
    Picture,
    bar_rows,
    error_bars,
    legend_below,
    literal,
    log_axis,
    save,
    spread_of,
    stage_style,
    unique_handles,
)
from bench.report.result import Result
from bench.results.readings import Timing
from bench.results.records import PointRecord
from bench.studies.pencil.sensitivity import Swing
from bench.studies.pencil.waterfall import Bar

MAX_FAMILIES = 6  # of models in one legend; the rest share a grey marker
MAX_ROWS = 16  # of bars in one figure; the tables have the rest


def save_all(
    directory: Path, result: Result, formats: Sequence[str] = FORMATS
) -> dict[str, Picture]:
    """Draw every figure of a result that there is data for into `directory` -> {name: picture}."""
    return _save(
        directory,
        {
            "waterfall": (
                "Minutes of video per GPU-hour, factor by factor",
                lambda: chain.waterfall(result.bars),
            ),
            "predicted_vs_measured": (
                "Predicted and measured seconds",
                lambda: predicted_vs_measured(result),
            ),
            "latency_vs_tokens": ("One forward of the denoiser", lambda: latency_vs_tokens(result)),
            "roofline": ("Roofline", lambda: device.roofline(result)),
            "efficiencies": ("Efficiency by operator class", lambda: device.efficiencies(result)),
            "stage_split": ("Shares of a video's seconds", lambda: stage_split(result)),
            "memory": ("Memory of each point", lambda: device.memory(result)),
            "ablations": (
                "What a recipe gains, and how far its output moves",
                lambda: ablations(result.ablations),
            ),
            "device_over_time": ("Clocks, power and temperature", lambda: device.over_time(result)),
            "ceilings": ("Best rate of each probe", lambda: device.ceilings(result)),
            "bandwidth_vs_size": (
                "Memory bandwidth by size of an array",
                lambda: device.bandwidth_vs_size(result),
            ),
        },
        formats,
    )


def save_chain(directory: Path, bars: list[Bar], swings: list[Swing] | None) -> dict[str, Picture]:
    """What `analytic --figures` draws."""
    return _save(
        directory,
        {
            "waterfall": (
                "Minutes of video per GPU-hour, factor by factor",
                lambda: chain.waterfall(bars),
            ),
            "tornado": (
                "What moves the fleet most",
                lambda: chain.tornado(swings) if swings else None,
            ),
        },
        FOR_PRINT,
    )


def save_queue(directory: Path, document: dict[str, Any]) -> Path:
    """What `serve-sim` draws, from its document -> the SVG's path."""
    name = "throughput_vs_latency"
    _save(
        directory,
        {name: ("Throughput against latency", lambda: chain.throughput_vs_latency(document))},
        FOR_PRINT,
    )
    return directory / f"{name}.svg"


def _save(
    directory: Path,
    wanted: dict[str, tuple[str, Callable[[], Drawing | None]]],
    formats: Sequence[str],
) -> dict[str, Picture]:
    directory.mkdir(parents=True, exist_ok=True)
    pictures = {}
    with plt.style.context(STYLE):
        for name, (title, draw) in wanted.items():
            drawing = draw()
            if drawing is not None:
                pictures[name] = save(drawing, directory, name, title, formats)
    return pictures


def predicted_vs_measured(result: Result) -> Drawing | None:
    """Held-out prediction (or the fit, where nothing else has that work) against measurement, and
    the error in per cent."""
    fit = result.fit
    if fit is None or not fit.stages:
        return None
    figure, (axes, below) = plt.subplots(2, figsize=(5.2, 4.9), height_ratios=(2.2, 1), sharex=True)
    shown = [
        t
        for s in fit.stages
        for t in (s.measured_s, s.fitted_s if s.held_out_s is None else s.held_out_s)
    ]
    ends = [min(shown) / 1.5, max(shown) * 1.5]  # of both axes, so that no prediction falls outside
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
        for held in (True, False):
            some = [
                s for s in fit.stages if s.stage == stage and (s.held_out_s is not None) == held
            ]
            if not some:
                continue
            y = [s.held_out_s if s.held_out_s is not None else s.fitted_s for s in some]
            x = [s.measured_s for s in some]
            t = [timings.get((s.point, s.stage)) for s in some]
            bars = error_bars(
                x,
                *(
                    [getattr(one, end) if one else v for one, v in zip(t, x, strict=True)]
                    for end in ("low_s", "high_s")
                ),
            )
            style = stage_style(stage) | ({} if held else {"mfc": "none"})
            words = f"{stage}, {'held out' if held else 'in the fit'} ({len(some)})"
            axes.errorbar(x, y, xerr=bars, ls="", elinewidth=0.8, label=words, **style)
            below.plot(x, [100 * (p / m - 1) for p, m in zip(y, x, strict=True)], ls="", **style)
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
        " fit that had not seen the point; hollow: nothing else has that class of work, so the fit"
        " has seen it. Horizontal bars: intervals of the measured medians,"
        f" {_samples(timings.values())}.{words}",
    )


def latency_vs_tokens(result: Result) -> Drawing | None:
    """One denoiser forward against tokens: measured, what the cost model says, and what one MFU for
    all would say."""
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
        f" their intervals, {_samples(r.timings['denoise_step'] for r in steps)}.{told}",
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


def stage_split(result: Result) -> Drawing | None:
    """Shares of a whole video's seconds by stage, for points of which every stage was timed."""
    videos = result.whole_videos[:MAX_ROWS]
    if not videos:
        return None
    figure, axes = plt.subplots(figsize=(5.2, 0.52 * len(videos) + 1.3))
    for i, video in enumerate(videos):
        left, total = 0.0, video.total.value
        for stage, s in video.seconds.items():
            k = STAGES.index(stage)
            axes.barh(
                i,
                100 * s / total,
                left=left,
                height=0.42,
                color=COLOURS[k],
                hatch=HATCHES[k],
                edgecolor="#ffffff",
                linewidth=0,
                label=stage,
            )
            left += 100 * s / total
        axes.text(0, i - 0.27, literal(video.record.label, 62), va="bottom", fontsize=7.5)
        half = (video.total.high - video.total.low) / 2 / total
        axes.text(101, i, f"{seconds(total)} ±{100 * half:.1f} %", va="center", fontsize=8)
    bar_rows(axes, len(videos))
    axes.set(xlabel="share of the seconds of a video (%)", xlim=(0, 132), xticks=range(0, 101, 20))
    unique = unique_handles(axes)
    legend_below(figure, [unique[s] for s in STAGES if s in unique])
    timings = [v.record.timings[s] for v in videos for s in v.seconds]
    return Drawing(
        figure,
        "All calls of each stage that one batch of videos needs, as shares of their sum (measured:"
        f" calls x median of one, {_samples(timings)}). Right: the sum, and half the width of its"
        " interval.",
    )


def _samples(timings: Iterable[Timing]) -> str:
    """'n = 3 to 60 calls, 95 %'."""
    timings = list(timings)
    if not timings:
        return "their samples not in this result"
    unsure = any(t.confidence < 0.95 for t in timings)
    return (
        f"{spread_of([t.n for t in timings])}"
        f" calls{', under six of them their range' if unsure else ', 95 %'}"
    )
