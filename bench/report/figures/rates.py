"""Minutes of video per hour and dollars per minute, where several recipes or cards can be chosen
from."""

from collections import Counter
from dataclasses import dataclass

import matplotlib.pyplot as plt

from bench.core.quantity import Quantity
from bench.core.units import minutes_an_hour, plain
from bench.report.figures.drawing import (
    BLUE,
    GREEN,
    GREY,
    Drawing,
    bar_rows,
    error_bars,
    literal,
)
from bench.report.result import Result
from bench.results.video import usd_per_minute

MAX_ROWS = 16
"""Bars in one figure; the tables have the others."""


@dataclass(frozen=True)
class Rate:
    """One way to make the same video.  Provenance: measured."""

    name: str
    """The recipe, and the card where there are several."""
    minutes: Quantity
    usd: Quantity | None


def rates_of(result: Result) -> tuple[str, list[Rate]]:
    """The video that most recipes or cards made, and what each makes of it, most first."""
    found = [*_whole(result), *_ablated(result)]
    videos = Counter(video for video, _ in found)
    if not videos:
        return "", []
    video = videos.most_common(1)[0][0]
    by_name = {rate.name: rate for of, rate in found if of == video}
    return video, sorted(by_name.values(), key=lambda rate: -rate.minutes.value)


def _whole(result: Result) -> list[tuple[str, Rate]]:
    """Of points whose every stage was timed."""
    cards = {v.record.environment.device_uuid_hash for v in result.whole_videos}
    found = []
    for v in result.whole_videos:
        record = v.record
        card = f" on {record.environment.device_uuid_hash}" if len(cards) > 1 else ""
        price = result.gpu.price_usd_per_hour if result.gpu else None
        rate = Rate(f"{record.recipe}{card}", v.minutes, usd_per_minute(v.minutes, price))
        found.append((f"{record.model} on {record.workload}", rate))
    return found


def _ablated(result: Result) -> list[tuple[str, Rate]]:
    """Of recipes beside their baseline."""
    return [
        (
            f"{row.model} on {row.workload}",
            Rate(row.recipe, row.minutes_per_gpu_hour, row.usd_per_minute),
        )
        for row in result.ablations
        if row.minutes_per_gpu_hour is not None and row.speed_up_provenance == "measured"
    ]


def rates(result: Result) -> Drawing | None:
    """Bars with their intervals; None where there is nothing to choose from."""
    video, found = rates_of(result)
    shown = found[:MAX_ROWS]
    if len(shown) < 2:
        return None
    priced = all(rate.usd for rate in shown)
    figure, axes = plt.subplots(
        ncols=2 if priced else 1, figsize=(5.2, 0.42 * len(shown) + 0.9), squeeze=False
    )
    _bars(axes[0][0], shown, [rate.minutes for rate in shown], BLUE)
    axes[0][0].set_xlabel(minutes_an_hour(result.environment.gpu))
    if priced:
        _bars(axes[0][1], shown, [rate.usd for rate in shown if rate.usd], GREEN)
        axes[0][1].set_xlabel("USD per minute of video")
    more = f" The {len(shown)} fastest of {len(found)}." if len(found) > len(shown) else ""
    return Drawing(
        figure,
        f"{literal(video, 60)}, all stages (measured), by recipe or card; lines: intervals of"
        f" the medians{', and of the price' if priced else ''}.{more}",
    )


def _bars(axes: plt.Axes, shown: list[Rate], values: list[Quantity], colour: str) -> None:
    middle = [q.value for q in values]
    errors = error_bars(middle, [q.low for q in values], [q.high for q in values])
    axes.barh(range(len(shown)), middle, height=0.36, color=colour, xerr=errors, ecolor=GREY)
    for i, (rate, q) in enumerate(zip(shown, values, strict=True)):
        axes.annotate(
            plain(q.value),
            (q.high, i),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=7.5,
        )
        axes.text(0, i - 0.24, literal(rate.name, 40), va="bottom", fontsize=7.5)
    bar_rows(axes, len(shown))
    axes.set_xlim(0, max(q.high for q in values) * 1.18)
