"""The seconds of a video by stage."""

import matplotlib.pyplot as plt

from bench.core.units import seconds
from bench.report.figures.drawing import (
    COLOURS,
    HATCHES,
    STAGES,
    Drawing,
    bar_rows,
    legend_below,
    literal,
    samples_of,
    unique_handles,
)
from bench.report.result import Result

MAX_ROWS = 16
"""Bars in one figure; the table has the others."""


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
        f" calls x median of one, {samples_of(timings)}). Right: the sum, and half the width of its"
        " interval.",
    )
