"""The gain of a recipe against the divergence of its output."""

from collections.abc import Sequence
from math import log

import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from bench.report.figures.drawing import (
    COLOURS,
    GREY,
    MARKERS,
    Drawing,
    error_bars,
    legend_below,
    literal,
)
from bench.studies.ablations.gains import Ablation

EXACT = 1e-9
"""The place of an identical output on a logarithmic axis."""


def ablations(rows: Sequence[Ablation]) -> Drawing | None:
    """Speed-up against divergence; the Pareto front of each model and workload joined by a line."""
    shown = [r for r in rows if r.speed_up and r.divergence and r.speed_up_provenance == "measured"]
    if not shown:
        return None
    figure, axes = plt.subplots(figsize=(5.2, 5.0))
    for i, group in enumerate(dict.fromkeys((r.model, r.workload, r.baseline) for r in shown)):
        looks = {"color": COLOURS[i % len(COLOURS)]}
        members = [r for r in shown if (r.model, r.workload, r.baseline) == group]
        x = [max(r.divergence.relative_l2, EXACT) for r in members]
        y = [r.speed_up.value for r in members]
        bars = error_bars(y, [r.speed_up.low for r in members], [r.speed_up.high for r in members])
        axes.errorbar(
            x,
            y,
            yerr=bars,
            ls="",
            marker=MARKERS[i % len(MARKERS)],
            ms=4,
            **looks,
            label=literal(f"{group[0]}, {group[1]}, against {group[2]}", 60),
        )
        front = sorted(
            (max(r.divergence.relative_l2, EXACT), r.speed_up.value) for r in members if r.on_front
        )
        if front:
            axes.plot(*zip(*front, strict=True), lw=1, alpha=0.6, **looks)
    axes.axhline(1.0, color=GREY, lw=1, ls=":")
    axes.margins(x=0.25)
    axes.set(
        xscale="log",
        yscale="log",
        ylabel="speed-up over the baseline",
        xlabel="relative L2 of the latents from the baseline's (1e-9: identical)",
    )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    _name(axes, shown)
    legend_below(figure, columns=1)
    return Drawing(
        figure,
        "Speed-up against divergence of the latents after the whole trajectory, same seed and"
        " weights (measured; bars: intervals of the ratios); lines: recipes that no other beats in"
        " both. Names that would cover others are in the table alone. Weights are random: the"
        " divergence says nothing of how a picture looks.",
    )


def _name(axes: plt.Axes, rows: list[Ablation]) -> None:
    """Names where there is room for them, those on the front first."""
    (low, high), (left, right) = axes.get_ylim(), axes.get_xlim()
    taken: list[tuple[float, float]] = []
    for r in sorted(rows, key=lambda r: not r.on_front):
        at = max(r.divergence.relative_l2, EXACT), r.speed_up.value
        x, y = log(at[0] / left) / log(right / left), log(at[1] / low) / log(high / low)
        if all(abs(x - a) > 0.3 or abs(y - b) > 0.028 for a, b in taken):
            taken.append((x, y))
            axes.annotate(
                literal(r.recipe, 26), at, xytext=(4, 3), textcoords="offset points", fontsize=6
            )
