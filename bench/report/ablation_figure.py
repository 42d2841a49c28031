"""What a recipe gains against how far its output moves, as a picture."""

from collections.abc import Sequence

import matplotlib.pyplot as plt

from bench.calibrate.ablations import Ablation
from bench.report.drawing import COLOURS, GREY, MARKERS, Drawing, error_bars, legend_below, literal

EXACT = 1e-9      # where a logarithmic axis shows what is the same to the last bit


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
        axes.errorbar(x, y, yerr=bars, ls="", marker=MARKERS[i % len(MARKERS)], ms=4, **looks,
                      label=literal(f"{group[0]}, {group[1]}, against {group[2]}", 60))
        front = sorted((max(r.divergence.relative_l2, EXACT), r.speed_up.value) for r in members if r.on_front)
        if front:
            axes.plot(*zip(*front, strict=True), lw=1, alpha=0.6, **looks)
        for r, at_x, at_y in zip(members, x, y, strict=True):
            axes.annotate(literal(r.recipe, 26), (at_x, at_y), xytext=(4, 3), textcoords="offset points", fontsize=6)
    axes.axhline(1.0, color=GREY, lw=1, ls=":")
    axes.margins(x=0.2)
    axes.set(xscale="log", yscale="log", ylabel="speed-up over the baseline",
             xlabel="relative L2 of the latents from the baseline's (left edge: identical)")
    legend_below(figure, columns=1)
    return Drawing(figure, "Speed-up against divergence of the latents after the whole trajectory, same seed and weights "
                           "(measured; bars: intervals of the ratios); lines: what no other recipe beats in both. Weights "
                           "are random: the divergence says nothing of how a picture looks.")
