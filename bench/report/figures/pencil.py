"""The waterfall of the pencil estimate, and its tornado."""

from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, LogLocator

from bench.core.units import MINUTES_AN_HOUR, plain
from bench.report.figures.drawing import (
    GREY,
    PROVENANCE_COLOURS,
    PROVENANCE_HATCHES,
    Drawing,
    bar_rows,
    legend_below,
    literal,
    log_axis,
    wrap,
)
from bench.studies.pencil.sensitivity import Swing
from bench.studies.pencil.waterfall import Bar

STATED = "stated or chosen"


def waterfall(bars: list[Bar]) -> Drawing:
    """Minutes per hour, factor by factor, on a log axis; the name of each factor stands above
    its bar."""
    figure, axes = plt.subplots(figsize=(5.2, 0.5 * len(bars) + 0.9))
    floor = min(b.value for b in bars) / 4
    for i, bar in enumerate(bars):
        axes.barh(i, bar.value - floor, left=floor, height=0.42, **_looks(bar.provenance))
        times = f"  (×{plain(bar.multiplier)})" if i else ""
        axes.text(bar.value * 1.12, i, f"{plain(bar.value)}{times}", va="center", fontsize=8)
        axes.text(floor, i - 0.27, wrap(bar.factor, 76), va="bottom", fontsize=7.5)
    bar_rows(axes, len(bars))
    highest = max(b.value for b in bars)
    axes.set(xlabel=MINUTES_AN_HOUR, xlim=(floor, highest * (highest / floor) ** 0.32))
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(numticks=6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: plain(v)))
    used = dict.fromkeys(b.provenance for b in bars)
    legend_below(figure, [mpl.patches.Patch(label=p, **_looks(p)) for p in used], columns=4)
    return Drawing(
        figure,
        "The pencil's minutes of video per H100-hour (claimed), and the same after each factor;"
        " the number in brackets is the factor. Each bar's hatch says how it came to be:"
        f" {', '.join(used)}. The last bar stands apart from the product.",
    )


def tornado(swings: list[Swing]) -> Drawing:
    """The fleet, or where none is asked for the minutes per hour, with one factor varied at a time,
    on a log axis; the widest bar on top."""
    figure, axes = plt.subplots(figsize=(5.2, 0.52 * len(swings) + 1.2))
    of_fleet = all(swing.fleet for swing in swings)
    of = [swing.fleet if of_fleet else swing.minutes for swing in swings]
    ends = [end for pair in of for end in pair]
    room = (max(ends) / min(ends)) ** 0.45
    axes.set(
        xscale="log",
        xlabel="GPUs that serve the demand" if of_fleet else MINUTES_AN_HOUR,
        xlim=(min(ends) / room, max(ends) * room),
    )
    words = {
        swing.factor: next((w for w in PROVENANCE_COLOURS if swing.source.startswith(w)), STATED)
        for swing in swings
    }
    for i, swing in enumerate(swings):
        low, high = sorted(zip(of[i], swing.settings, strict=True))
        axes.barh(i, high[0] - low[0], left=low[0], height=0.42, **_looks(words[swing.factor]))
        for (at, setting), side, away in ((low, "right", -4), (high, "left", 4)):
            axes.annotate(
                literal(setting, 24),
                (at, i),
                xytext=(away, 0),
                textcoords="offset points",
                va="center",
                ha=side,
                fontsize=7.5,
            )
        axes.text(
            0.0,
            i - 0.27,
            wrap(swing.factor, 76),
            transform=axes.get_yaxis_transform(),
            va="bottom",
            fontsize=7.5,
        )
    bar_rows(axes, len(swings))
    log_axis(axes.xaxis)
    if not of_fleet:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: plain(v)))
    used = dict.fromkeys(words.values())
    subject = "The fleet of row A16" if of_fleet else "The headline"
    legend_below(figure, [mpl.patches.Patch(label=w, **_looks(w)) for w in used], columns=3)
    return Drawing(
        figure,
        f"{subject} with one factor varied at a time, within its measured interval or a stated"
        f" range; the setting stands at each end. Hatches: {', '.join(used)}.",
    )


def _looks(word: str) -> dict[str, Any]:
    return {
        "facecolor": PROVENANCE_COLOURS.get(word, GREY),
        "hatch": PROVENANCE_HATCHES.get(word, "--"),
        "edgecolor": "#ffffff",
        "linewidth": 0,
    }
