"""A fleet's figures: cost against latency with the efficient front, and the tornado."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.ticker import EngFormatter, FuncFormatter

from bench.core.units import seconds
from bench.report.figures.drawing import (
    BLUE,
    COLOURS,
    FORMATS,
    GREY,
    MARKERS,
    ORANGE,
    STYLE,
    Drawing,
    bar_rows,
    legend_below,
    literal,
    log_axis,
    save,
)
from bench.report.fleet.tables import people
from bench.results.store import disk_faults
from bench.studies.fleet.plan import Plan
from bench.studies.fleet.policies import Outcome
from bench.studies.fleet.tornado import Swing


def frontier(plan: Plan, outcomes: Sequence[Outcome]) -> Drawing:
    """Dollars of an uploaded minute against how long a clip takes; GPUs where a card has no
    price."""
    figure, axes = plt.subplots(figsize=(6.0, 4.0))
    ways = list(dict.fromkeys(o.how for o in outcomes))
    priced = all(o.usd_per_minute is not None for o in outcomes)

    def cost(outcome: Outcome) -> float:
        return float(outcome.usd_per_minute if priced else outcome.gpus)  # type: ignore[arg-type]

    for o in outcomes:
        k = ways.index(o.how) % len(COLOURS)
        axes.plot(
            o.latency_s,
            cost(o),
            MARKERS[k],
            color=COLOURS[k],
            alpha=1.0 if o.on_front else 0.45,
            markersize=6,
            label=literal(o.how),
        )
    front = sorted((o for o in outcomes if o.on_front), key=lambda o: o.latency_s)
    axes.plot(
        [o.latency_s for o in front],
        [cost(o) for o in front],
        color=GREY,
        drawstyle="steps-post",
        zorder=0,
    )
    log_axis(axes.xaxis)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: seconds(value)))
    axes.set_xlabel(f"{plan.demand.objective.share:.0%} of clips are done within")
    axes.set_ylabel("USD of an uploaded minute" if priced else "GPUs")
    axes.set_ylim(bottom=0)
    handles, labels = axes.get_legend_handles_labels()
    legend_below(figure, list(dict(zip(labels, handles, strict=True)).values()))
    return Drawing(
        figure,
        f"Ways to run {plan.demand.name} on {plan.server.gpu.name}: what a minute costs against how"
        f" long a clip takes in the busiest hour ({plan.server.provenance} seconds, queueing"
        " theory). The line is the efficient front; what is pale lies behind it.",
    )


def tornado_figure(plan: Plan, swings: Sequence[Swing]) -> Drawing:
    """Bars from the fleet at the low end to that at the high end of each number's range."""
    figure, axes = plt.subplots(figsize=(6.0, 0.5 * len(swings) + 1.1))
    for i, swing in enumerate(swings):
        middle = plan.fleet.gpus
        for end, colour in ((swing.gpus_at_low, BLUE), (swing.gpus_at_high, ORANGE)):
            axes.barh(i, end - middle, left=middle, height=0.42, color=colour)
        said = f"{swing.name}: {people(swing.low)} to {people(swing.high)}"
        axes.text(
            0.0, i - 0.33, literal(said, 80), fontsize=7, transform=axes.get_yaxis_transform()
        )
    axes.axvline(plan.fleet.gpus, color=GREY, linewidth=1)
    bar_rows(axes, len(swings))
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.set_xlabel("GPUs at the peak")
    axes.set_xlim(left=0)
    return Drawing(
        figure,
        f"GPUs for {plan.demand.name} on {plan.server.gpu.name}, with one number at the ends of its"
        " range and all others at their middle (blue: low end, orange: high end).",
    )


def save_figures(
    directory: Path, plan: Plan, outcomes: Sequence[Outcome], swings: Sequence[Swing]
) -> dict[str, str]:
    """-> the files by name.  Raises as other writes do."""
    with disk_faults(directory, measured=False), plt.style.context(STYLE):
        directory.mkdir(parents=True, exist_ok=True)
        save(frontier(plan, outcomes), directory, "frontier", "Cost and latency", FORMATS)
        save(tornado_figure(plan, swings), directory, "tornado", "What moves it", FORMATS)
    return {name: str(directory / f"{name}.svg") for name in ("frontier", "tornado")}
