"""The roofs of a device, and how near the stages come to them."""

import matplotlib.pyplot as plt

from bench.core.units import si
from bench.report.figures.drawing import (
    INK,
    Drawing,
    error_bars,
    legend_below,
    log_axis,
    spread_of,
    stage_style,
)
from bench.report.result import Result
from bench.results.readings import Timing
from bench.results.records import PointRecord

ROOFS = (
    ("gemm_flops_per_s", "GEMM", "-"),
    ("attention_flops_per_s", "attention", "--"),
    ("conv_flops_per_s", "convolution", "-."),
)


def roofline(result: Result) -> Drawing | None:
    """FLOP/s of each stage against FLOPs per modelled byte, under the roofs of its recipe."""
    fit = result.fit
    if fit is None:
        return None
    points = [r for r in result.points if r.recipe in fit.recipes and r.timings]
    if not points:
        return None
    figure, axes = plt.subplots(figsize=(5.2, 4.2))
    timings, intensities = _draw_stages(axes, points)
    _draw_roofs(axes, fit.ceilings, intensities)
    achieved = [r.counts[s].flops / t.median_s for r in points for s, t in r.timings.items()]
    axes.set(
        ylim=(min(achieved) / 3, max(_highest_roof(fit.ceilings), *achieved) * 2),
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
        f" the slope is its copy rate, {si(fit.ceilings['copy_bytes_per_s'], 'B/s')}.",
    )


def _draw_stages(axes: plt.Axes, points: list[PointRecord]) -> tuple[list[Timing], list[float]]:
    """A marker for each stage of each point -> their timings, and the ends of FLOPs per byte."""
    timings: list[Timing] = []
    intensities: list[float] = []
    for stage in dict.fromkeys(stage for r in points for stage in r.timings):
        some = [(r.counts[stage], r.timings[stage]) for r in points if stage in r.timings]
        some = [(count, t) for count, t in some if count.bytes_modelled_max]
        if not some:
            continue
        low = [count.flops / count.bytes_modelled_max for count, _ in some]
        high = [count.flops / max(count.bytes_modelled_min, 1) for count, _ in some]
        x = [(a * b) ** 0.5 for a, b in zip(low, high, strict=True)]
        y = [count.flops / t.median_s for count, t in some]
        slow = [count.flops / t.high_s for count, t in some]
        fast = [count.flops / t.low_s for count, t in some]
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
        intensities += low + high
        timings += [t for _, t in some]
    return timings, intensities


def _draw_roofs(axes: plt.Axes, rates: dict[str, float], intensities: list[float]) -> None:
    """The slope of the copy rate, and a flat line for each kind of operator."""
    copy = rates["copy_bytes_per_s"]
    knee = _highest_roof(rates) / copy
    left, right = min([*intensities, knee]) / 2, max([*intensities, knee]) * 6
    axes.set_xlim(left, right)
    axes.plot([left, right], [left * copy, right * copy], color=INK, lw=1)
    for name, words, dashes in ROOFS:
        if name in rates:
            label = f"{words} {si(rates[name], 'FLOP/s')}"
            ends = [rates[name] / copy, right]
            axes.plot(ends, [rates[name]] * 2, color=INK, lw=1, ls=dashes, label=label)


def _highest_roof(rates: dict[str, float]) -> float:
    return max(rate for name, rate in rates.items() if name.endswith("flops_per_s"))
