"""Memory of each point: counted, modelled and measured."""

import matplotlib.pyplot as plt

from bench.report.figures.drawing import (
    BLUE,
    GREEN,
    ORANGE,
    Drawing,
    bar_rows,
    legend_below,
    literal,
    unique_handles,
)
from bench.report.result import Result

MAX_ROWS = 12
"""Bars in one figure; the table has the others."""


def memory(result: Result) -> Drawing | None:
    """Weights and the modelled peak of each point's hungriest stage, beside the measured peak."""
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
