"""Figures of the device: its roofs and how near the work comes, memory, and what it did while it
was timed."""

import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from bench.calibrate.calibration import Fit
from bench.core.units import si
from bench.report.figures.drawing import (
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    INK,
    MARKERS,
    ORANGE,
    Drawing,
    bar_rows,
    error_bars,
    legend_below,
    literal,
    log_axis,
    spread_of,
    stage_style,
    unique_handles,
)
from bench.report.result import Result
from bench.report.tables.device import binary
from bench.results.readings import Series
from bench.results.records import MEMORY_PROBES, CeilingsRecord, Probe

MAX_ROWS = 12
PANELS = (
    ("sm_clock_hz", "SM clock (MHz)", 1e-6),
    ("memory_clock_hz", "memory clock (MHz)", 1e-6),
    ("power_w", "power (W)", 1.0),
    ("temperature_c", "temperature (°C)", 1.0),
)


def roofline(result: Result) -> Drawing | None:
    """Achieved FLOP/s of each stage against FLOPs per modelled byte, under the measured roofs of
    its recipe."""
    fit = result.fit
    if fit is None or not any(r.recipe in fit.recipes and r.timings for r in result.points):
        return None
    figure, axes = plt.subplots(figsize=(5.2, 4.2))
    spans = []
    timings = []
    for stage in dict.fromkeys(s for r in result.points for s in r.timings):
        some = [
            (r.counts[stage], r.timings[stage])
            for r in result.points
            if stage in r.timings and r.recipe in fit.recipes
        ]
        some = [(c, t) for c, t in some if c.bytes_modelled_max]
        if not some:
            continue
        low, high = (
            [c.flops / max(b, 1) for c, b in ends]
            for ends in (
                [(c, c.bytes_modelled_max) for c, _ in some],
                [(c, c.bytes_modelled_min) for c, _ in some],
            )
        )
        x = [(a * b) ** 0.5 for a, b in zip(low, high, strict=True)]
        y, slow, fast = (
            [c.flops / getattr(t, end) for c, t in some] for end in ("median_s", "high_s", "low_s")
        )
        axes.errorbar(
            x,
            y,
            xerr=error_bars(x, low, high),
            yerr=error_bars(y, slow, fast),
            ls="",
            elinewidth=0.7,
            capsize=0,
            label=f"{stage} ({len(some)})",
            **stage_style(stage),
        )
        spans += low + high
        timings += [t for _, t in some]
    rates = fit.ceilings
    knee = (
        max(v for name, v in rates.items() if name.endswith("flops_per_s"))
        / rates["copy_bytes_per_s"]
    )
    ends = [min([*spans, knee]) / 2, max([*spans, knee]) * 6]
    axes.plot(ends, [e * rates["copy_bytes_per_s"] for e in ends], color=INK, lw=1)
    top = max(v for name, v in rates.items() if name.endswith("flops_per_s"))
    roofs = (
        ("gemm_flops_per_s", "GEMM", "-"),
        ("attention_flops_per_s", "attention", "--"),
        ("conv_flops_per_s", "convolution", "-."),
    )
    for name, words, dashes in roofs:
        if name in rates:
            axes.plot(
                [rates[name] / rates["copy_bytes_per_s"], ends[1]],
                [rates[name]] * 2,
                color=INK,
                lw=1,
                ls=dashes,
                label=f"{words} {si(rates[name], 'FLOP/s')}",
            )
    achieved = [
        c.flops / t.median_s
        for r in result.points
        if r.recipe in fit.recipes
        for s, t in r.timings.items()
        for c in [r.counts[s]]
    ]
    axes.set(
        xlim=ends,
        ylim=(min(achieved) / 3, max(top, *achieved) * 2),
        xlabel="FLOPs per modelled byte moved",
        ylabel="FLOP/s",
    )
    log_axis(axes.xaxis)
    log_axis(axes.yaxis)
    legend_below(figure)
    return Drawing(
        figure,
        f"Each stage of {fit.title}: FLOP/s (counted FLOPs over the measured median,"
        f" {spread_of([t.n for t in timings])} calls) against FLOPs per byte; horizontal bars span"
        " the modelled bytes (counted), fused to unfused. Lines: this device's roofs (measured);"
        f" the slope is its copy rate, {si(rates['copy_bytes_per_s'], 'B/s')}.",
    )


def efficiencies(result: Result) -> Drawing | None:
    """Each operator class's share of its own measured ceiling, with its 90 % interval, recipe by
    recipe."""
    shown: list[tuple[Fit, str]] = [
        (fit, name)
        for fit in result.fits
        for name, p in fit.parameters.items()
        if p.value is not None and p.unit == "share of ceiling"
    ]
    if not shown:
        return None
    names = list(dict.fromkeys(name for _, name in shown))
    figure, axes = plt.subplots(figsize=(5.2, 0.42 * len(names) + 1.4))
    for k, fit in enumerate(result.fits):
        some = [(names.index(name), fit.parameters[name]) for other, name in shown if other is fit]
        x = [p.value for _, p in some]
        y = [i + (k - (len(result.fits) - 1) / 2) * 0.18 for i, _ in some]
        axes.errorbar(
            x,
            y,
            xerr=error_bars(x, [p.low for _, p in some], [p.high for _, p in some]),
            ls="",
            color=COLOURS[k % len(COLOURS)],
            marker=MARKERS[k % len(MARKERS)],
            label=literal(fit.title),
        )
        for (_, p), at in zip(some, y, strict=True):
            words = f"{p.value:.3g}" + (
                " (at its bound)" if p.at_bound else "" if p.identified else " (mostly belief)"
            )
            axes.text(
                0.995,
                at,
                words,
                transform=axes.get_yaxis_transform(),
                ha="right",
                va="center",
                fontsize=7.5,
            )
    axes.axvline(1, color=INK, lw=0.8)
    values = [v for fit, n in shown for v in (fit.parameters[n].low, fit.parameters[n].high)]
    if max(values) > 3:
        axes.set_xlim(min(values) / 1.5, max(values) * 12)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.set_xlim(0, max(1.0, *values) * 1.35)
    axes.set_yticks(
        range(len(names)), [n.removesuffix("_efficiency").replace("_", " ") for n in names]
    )
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel("share of the class's own measured ceiling")
    if len(result.fits) > 1:
        legend_below(figure)
    return Drawing(
        figure,
        "What each class of operator reaches of its own ceiling on this device (fitted, 90 %"
        " intervals of the bootstrap). Over 1 only where bytes are modelled and caches save some."
        " Mostly belief: the records say no more of it than what was assumed before.",
    )


def ceilings(result: Result) -> Drawing | None:
    """Best rate of each probe and dtype, all shapes behind it, and the datasheet's figure where
    there is one."""
    record = result.ceilings
    if record is None:
        return None
    groups: dict[tuple[str, str, str | None], list[Probe]] = {}
    for p in record.probes:
        groups.setdefault((p.kind, p.dtype, p.backend), []).append(p)
    compute = [key for key, probes in groups.items() if probes[0].flops is not None]
    moved = [key for key, probes in groups.items() if probes[0].flops is None]
    panels = [keys for keys in (compute, moved) if keys]
    rows = sum(map(len, panels))
    figure, grid = plt.subplots(
        len(panels),
        figsize=(5.2, 0.3 * rows + 0.75 * len(panels) + 0.5),
        squeeze=False,
        height_ratios=[len(keys) + 1 for keys in panels],
    )
    for axes, keys in zip(grid[:, 0], panels, strict=True):
        unit = "B/s" if keys is moved else "FLOP/s"
        for i, key in enumerate(keys):
            _ceiling(axes, i, record, key, groups[key], result)
        axes.set_yticks(range(len(keys)), [" ".join(filter(None, key)) for key in keys])
        axes.set_ylim(len(keys) - 0.4, -0.6)
        low, high = axes.get_xlim()
        axes.set_xlim(low / 1.3, high * (high / low) ** 0.5)
        axes.set_xlabel(unit)
        log_axis(axes.xaxis)
    legend_below(figure, list(unique_handles(grid[0, 0]).values()), columns=3)
    known = any(datasheet_rate(result, kind, dtype) for kind, dtype, _ in groups)
    sheet = (
        " Line: the datasheet's rate (claimed)."
        if known
        else " No datasheet rate is known for this device."
    )
    n = spread_of([p.timing.n for p in record.probes])
    return Drawing(
        figure,
        f"What {result.environment.device_name} reached (measured, {n} calls a shape); bars:"
        f" intervals of the medians. Small dots: the other shapes.{sheet}",
    )


def datasheet_rate(result: Result, kind: str, dtype: str) -> float | None:
    """FLOP/s or bytes/s that the datasheet gives for a kind of probe."""
    if result.gpu is None:
        return None
    if kind in MEMORY_PROBES:
        return result.gpu.bandwidth_bytes_per_s
    return (
        result.gpu.peak_flops_per_s.get(dtype) if kind in ("gemm", "attention", "conv3d") else None
    )


def _ceiling(
    axes: plt.Axes,
    row: int,
    record: CeilingsRecord,
    key: tuple[str, str, str | None],
    probes: list[Probe],
    result: Result,
) -> None:
    best = record.best(*key[:2], key[2])
    work = best.rate * best.timing.median_s
    low, high = work / best.timing.high_s, work / best.timing.low_s
    axes.set_xscale("log")
    axes.plot(
        [p.rate for p in probes], [row] * len(probes), ".", color=GREY, ms=4, label="other shapes"
    )
    axes.errorbar(
        [best.rate],
        [row],
        xerr=error_bars([best.rate], [low], [high]),
        color=BLUE,
        marker="o",
        ls="",
        label="ceiling (measured)",
        zorder=3,
    )
    sheet, words = (
        datasheet_rate(result, *key[:2]),
        si(best.rate, "B/s" if best.flops is None else "FLOP/s"),
    )
    if sheet:
        axes.plot(
            [sheet] * 2, [row - 0.32, row + 0.32], color=ORANGE, lw=2, label="datasheet (claimed)"
        )
        words += f", {best.rate / sheet:.0%}"
    right = max([sheet or 0.0, high, *(p.rate for p in probes)])
    axes.annotate(
        words, (right, row), xytext=(6, 0), textcoords="offset points", va="center", fontsize=7.5
    )


def bandwidth_vs_size(result: Result) -> Drawing | None:
    """Copy, triad, read and write against the array's size: where a cache ends, the rate falls."""
    record = result.ceilings
    probes = [p for p in record.probes if p.kind in MEMORY_PROBES] if record else []
    if not probes:
        return None
    figure, axes = plt.subplots(figsize=(5.2, 3.6))
    for i, kind in enumerate(MEMORY_PROBES):
        some = sorted((p for p in probes if p.kind == kind), key=lambda p: p.shape["bytes"])
        if some:
            y = [p.rate for p in some]
            work = [p.bytes_moved for p in some]
            low, high = (
                [w / getattr(p.timing, end) for w, p in zip(work, some, strict=True)]
                for end in ("high_s", "low_s")
            )
            axes.errorbar(
                [p.shape["bytes"] for p in some],
                y,
                yerr=error_bars(y, low, high),
                color=COLOURS[i],
                marker=MARKERS[i],
                label=kind,
            )
    sizes = sorted({p.shape["bytes"] for p in probes})
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: binary(int(v))))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(sizes if len(sizes) <= 6 else sizes[:: -(-len(sizes) // 6)])
    axes.set(xlabel="size of one array", ylabel="bytes read and written a second (B/s)")
    sheet = result.gpu.bandwidth_bytes_per_s if result.gpu else None
    if sheet:
        axes.axhline(sheet, color=INK, lw=1, ls="--", label="datasheet (claimed)")
    log_axis(axes.yaxis)
    legend_below(figure, columns=3)
    n = spread_of([p.timing.n for p in probes])
    return Drawing(
        figure,
        f"Bytes moved a second (measured, {n} calls, intervals of the medians) against the size of"
        " one array.",
    )


def memory(result: Result) -> Drawing | None:
    """Weights and the modelled peak of each point's hungriest stage, beside what was measured."""
    some = [r for r in result.points if r.memory is not None and r.timings]
    if not some:
        return None
    peak = {r.fingerprint: max(r.counts[s].bytes_peak_activations for s in r.timings) for r in some}
    some = sorted(some, key=lambda r: -(r.memory.weights + peak[r.fingerprint]))
    left_out, some = max(0, len(some) - MAX_ROWS), some[:MAX_ROWS]
    figure, axes = plt.subplots(figsize=(5.2, 0.42 * len(some) + 1.4))
    for i, r in enumerate(some):
        axes.barh(i, r.memory.weights / 1e9, height=0.36, color=BLUE, label="weights (counted)")
        axes.barh(
            i,
            peak[r.fingerprint] / 1e9,
            left=r.memory.weights / 1e9,
            height=0.36,
            color=GREEN,
            hatch="////",
            edgecolor="#ffffff",
            linewidth=0,
            label="peak of activations (counted, modelled)",
        )
        if r.memory.peak_allocated is not None:
            whole = "measured peak" + ("" if r.memory.by_stage else ", whole process")
            axes.plot(r.memory.peak_allocated / 1e9, i, "D", color=ORANGE, label=whole)
        axes.text(0, i - 0.23, literal(r.label, 70), va="bottom", fontsize=7)
    bar_rows(axes, len(some))
    axes.set_xlim(0, axes.get_xlim()[1])
    axes.set_xlabel("memory (GB = 1e9 bytes)")
    legend_below(figure, list(unique_handles(axes).values()))
    rest = f" The {left_out} smaller points are in the table." if left_out else ""
    return Drawing(
        figure,
        "Each point's weights (counted), the modelled peak of the tensors alive in its hungriest"
        f" stage (counted) and its measured peak, where it was read (one run).{rest}",
    )


def over_time(result: Result) -> Drawing | None:
    """SM clock, power and temperature of the timed stages, laid end to end in the order they were
    measured."""
    series: list[tuple[str, Series]] = [
        (f"{r.label} {stage}", seen.series)
        for r in result.points
        for stage, seen in (r.telemetry or {}).items()
        if seen.series is not None and seen.series.t_s
    ]
    panels = [
        panel
        for panel in PANELS
        if any(v is not None for _, s in series for v in getattr(s, panel[0]))
    ]
    if not panels:
        return None
    figure, grid = plt.subplots(
        len(panels), figsize=(5.2, 1.25 * len(panels) + 0.7), sharex=True, squeeze=False
    )
    start, held = 0.0, 0
    for i, (_, s) in enumerate(series):
        length = max(s.t_s[-1], 1e-3) * (1 + 1 / max(len(s.t_s), 1))
        for axes, (name, _, factor) in zip(grid[:, 0], panels, strict=True):
            if i % 2:
                axes.axvspan(start, start + length, color=GREY, alpha=0.18, lw=0)
            seen = [
                (start + t, factor * v)
                for t, v in zip(s.t_s, getattr(s, name), strict=True)
                if v is not None
            ]
            if seen:
                axes.plot(
                    *zip(*seen, strict=True), color=BLUE, marker="." if len(seen) < 40 else "", ms=3
                )
            if name == "sm_clock_hz":
                slow = [
                    (start + t, factor * v)
                    for t, v, why in zip(s.t_s, s.sm_clock_hz, s.throttle_reasons, strict=True)
                    if v is not None and why and set(why) - {"gpu_idle"}
                ]
                held += len(slow)
                if slow:
                    axes.plot(
                        *zip(*slow, strict=True), "x", color=ORANGE, ms=4, label="clocks held down"
                    )
        start += length
    for axes, (_, words, _) in zip(grid[:, 0], panels, strict=True):
        axes.set_ylabel(words, fontsize=8)
    grid[-1, 0].set(xlabel="seconds of sampling, stages laid end to end", xlim=(0, start))
    if marked := unique_handles(grid[0, 0]):
        legend_below(figure, list(marked.values()))
    n = sum(len(s.t_s) for _, s in series)
    return Drawing(
        figure,
        f"What the card did while its stages were timed (measured by NVML, {n} samples of"
        f" {len(series)} stages in the order of the table; shading parts the stages; {held} samples"
        " with clocks held down).",
    )
