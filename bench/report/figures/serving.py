"""A queue before one device: throughput against latency."""

from typing import Any

import matplotlib.pyplot as plt

from bench.report.figures.drawing import COLOURS, MARKERS, Drawing, legend_below, literal, log_axis


def throughput_vs_latency(document: dict[str, Any]) -> Drawing:
    """A curve a policy, from `serve-sim --json`'s document."""
    figure, axes = plt.subplots(figsize=(5.2, 4.2))
    for i, policy in enumerate(document["policies"]):
        colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]
        loads = [load for load in policy["loads"] if not load["saturated"]]
        x = [load["videos_per_hour"] for load in loads]
        axes.plot(
            x,
            [load["latency_s"]["p50"] for load in loads],
            color=colour,
            marker=marker,
            label=literal(policy["name"]),
        )
        axes.plot(x, [load["latency_s"]["p95"] for load in loads], "--", color=colour, lw=1)
        axes.axvline(policy["saturation"]["videos_per_hour"], color=colour, lw=0.8, ls=":")
    axes.set(xlabel="videos an hour, one device", ylabel="latency of a request")
    log_axis(axes.yaxis, "s")
    legend_below(figure)
    return Drawing(
        figure,
        f"{document['model']}, {document['recipe']} ({document['provenance']}): latency of a"
        " request against throughput, by policy. Solid: median; dashed: 95th percentile; dotted:"
        " the most it can make.",
    )
