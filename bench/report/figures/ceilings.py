"""The rates that a device reaches: each probe, and memory by size of an array."""

import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, NullLocator

from bench.core.units import si
from bench.report.figures.drawing import (
    BLUE,
    COLOURS,
    GREY,
    INK,
    MARKERS,
    ORANGE,
    Drawing,
    error_bars,
    legend_below,
    log_axis,
    spread_of,
    unique_handles,
)
from bench.report.numbers import binary
from bench.report.result import Result
from bench.report.tables.doctor import datasheet_rate
from bench.results.records import MEMORY_PROBES, CeilingsRecord, Probe


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
    known = any(datasheet_rate(result.gpu, kind, dtype) for kind, dtype, _ in groups)
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
        datasheet_rate(result.gpu, *key[:2]),
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
