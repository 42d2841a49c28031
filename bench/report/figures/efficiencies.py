"""The share of its ceiling that each class of operator reaches."""

import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from bench.calibrate.calibration import Fit, FittedParameter
from bench.report.figures.drawing import (
    COLOURS,
    INK,
    MARKERS,
    Drawing,
    error_bars,
    legend_below,
    literal,
)
from bench.report.result import Result


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
        shift = 0.18 * (k - (len(result.fits) - 1) / 2)
        _draw_fit(axes, fit, [(row + shift, p) for row, p in some], k)
    axes.axvline(1, color=INK, lw=0.8)
    _limit(axes, [v for fit, n in shown for v in (fit.parameters[n].low, fit.parameters[n].high)])
    words = [name.removesuffix("_efficiency").replace("_", " ") for name in names]
    axes.set_yticks(range(len(names)), words)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel("share of the class's own measured ceiling")
    if len(result.fits) > 1:
        legend_below(figure)
    return Drawing(
        figure,
        "The share of its own ceiling that each class of operator reaches on this device (fitted,"
        " 90 % intervals of the bootstrap). Over 1 only where bytes are modelled and caches save"
        " some. Near its prior: too few points determine the parameter.",
    )


def _draw_fit(axes: plt.Axes, fit: Fit, rows: list[tuple[float, FittedParameter]], k: int) -> None:
    """rows: height and parameter; k: which of the fits."""
    x, y = [p.value for _, p in rows], [at for at, _ in rows]
    axes.errorbar(
        x,
        y,
        xerr=error_bars(x, [p.low for _, p in rows], [p.high for _, p in rows]),
        ls="",
        color=COLOURS[k % len(COLOURS)],
        marker=MARKERS[k % len(MARKERS)],
        label=literal(fit.title),
    )
    for at, p in rows:
        note = " (at its bound)" if p.at_bound else "" if p.identified else " (near its prior)"
        axes.text(
            0.995,
            at,
            f"{p.value:.3g}{note}",
            transform=axes.get_yaxis_transform(),
            ha="right",
            va="center",
            fontsize=7.5,
        )


def _limit(axes: plt.Axes, values: list[float]) -> None:
    """Linear, or logarithmic where a share is far over 1; room on the right for the numbers."""
    if max(values) <= 3:
        axes.set_xlim(0, max(1.0, *values) * 1.35)
        return
    axes.set_xlim(min(values) / 1.5, max(values) * 12)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
