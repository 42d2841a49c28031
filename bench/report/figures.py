"""Figures of a report: SVG for print, PNG for a glance.  Colours are Okabe and Ito's, safe for colour-blind readers."""

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

from bench.calibrate.ablations import Ablation
from bench.calibrate.calibration import Fit
from bench.calibrate.sensitivity import Swing
from bench.calibrate.waterfall import Bar
from bench.core.errors import one_line
from bench.core.records import PointRecord

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#8C8C8C"
STAGE_COLOURS = {"denoise_step": BLUE, "vae_decode": ORANGE, "vae_encode": GREEN, "text_encode": "#CC79A7"}
PROVENANCE_COLOURS = {"claimed": GREY, "counted": BLUE, "measured": GREEN, "fitted": ORANGE, "extrapolated": "#CC79A7"}
STYLE = {
    "figure.figsize": (7.0, 4.4), "figure.constrained_layout.use": True, "font.size": 10, "axes.grid": True,
    "grid.alpha": 0.3, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "ldt-bench",
}


def save_all(directory: Path, records: list[PointRecord], fit: Fit | None, bars: list[Bar],
             swings: list[Swing] | None = None, rows: Sequence[Ablation] = ()) -> dict[str, str]:
    """Draw every figure there is data for -> {name: caption}; files NAME.svg and NAME.png in `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    captions = {}
    with plt.rc_context(STYLE):
        if any("denoise_step" in r.timings for r in records):
            captions["latency_vs_tokens"] = latency_vs_tokens(directory, records, fit)
        if fit is not None and fit.stages:
            captions["predicted_vs_measured"] = predicted_vs_measured(directory, fit)
        if any(row.speed_up and row.divergence for row in rows):
            captions["ablations"] = ablations(directory, rows)
        captions["waterfall"] = waterfall(directory, bars)
        if swings:
            captions["tornado"] = tornado(directory, swings)
    return captions


def latency_vs_tokens(directory: Path, records: Iterable[PointRecord], fit: Fit | None) -> str:
    """One denoiser forward against tokens, per sample; what the fit says of the same points as open rings."""
    figure, axes = plt.subplots()
    steps = [r for r in records if "denoise_step" in r.timings]
    fitted = {s.point: s.fitted_s for s in fit.stages if s.stage == "denoise_step"} if fit else {}
    families: dict[str, list[PointRecord]] = {}
    for r in sorted(steps, key=lambda r: r.tokens):
        families.setdefault(f"{r.model}, {r.recipe}", []).append(r)
    colours = [BLUE, ORANGE, GREEN, "#CC79A7", "#56B4E9", "#E69F00", "#000000", GREY]
    for i, (label, members) in enumerate(families.items()):
        per_forward = [_forwards(r) for r in members]
        t = [r.timings["denoise_step"] for r in members]
        y = [x.median_s / f for x, f in zip(t, per_forward, strict=True)]
        errors = [[(x.median_s - x.low_s) / f for x, f in zip(t, per_forward, strict=True)],
                  [(x.high_s - x.median_s) / f for x, f in zip(t, per_forward, strict=True)]]
        x = [r.tokens for r in members]
        axes.errorbar(x, y, yerr=errors, fmt="o-", ms=5, lw=1, capsize=3, color=colours[i % len(colours)],
                      label=_literal(label))
        rings = [(r.tokens, fitted[r.label] / f) for r, f in zip(members, per_forward, strict=True) if r.label in fitted]
        if rings:
            axes.plot(*zip(*rings, strict=True), "o", ms=10, mfc="none", color=colours[i % len(colours)])
    axes.set(xscale="log", yscale="log", xlabel="tokens of one sample", ylabel="one forward of the denoiser (s)",
             title="Latency against tokens (measured; rings: fitted)")
    axes.legend(fontsize=8)
    _save(figure, directory, "latency_vs_tokens")
    return ("Seconds of one denoiser forward against tokens. Dots: measured medians with their intervals, n as in "
            "the table; rings: the fit of the same points.")


def predicted_vs_measured(directory: Path, fit: Fit) -> str:
    """Held-out prediction (or the fit, where nothing else has that work) against measurement, all stages."""
    figure, axes = plt.subplots()
    shown = [t for s in fit.stages for t in (s.measured_s, s.fitted_s if s.held_out_s is None else s.held_out_s)]
    ends = [min(shown) / 1.5, max(shown) * 1.5]      # of both axes, so that no prediction falls outside
    axes.plot(ends, ends, color=GREY, lw=1)
    axes.fill_between(ends, [0.9 * e for e in ends], [1.1 * e for e in ends], color=GREY, alpha=0.2, lw=0, label="±10 %")
    for stage, colour in STAGE_COLOURS.items():
        held = [(s.measured_s, s.held_out_s) for s in fit.stages if s.stage == stage and s.held_out_s is not None]
        seen = [(s.measured_s, s.fitted_s) for s in fit.stages if s.stage == stage and s.held_out_s is None]
        if held:
            axes.plot(*zip(*held, strict=True), "o", color=colour, label=f"{stage}, held out (n={len(held)})")
        if seen:
            axes.plot(*zip(*seen, strict=True), "x", color=colour, label=f"{stage}, in the fit (n={len(seen)})")
    axes.set(xscale="log", yscale="log", xlabel="measured (s)", ylabel="predicted (s)", xlim=ends, ylim=ends,
             title=f"Predicted against measured, {_literal(fit.recipe)}")
    axes.legend(fontsize=8)
    _save(figure, directory, "predicted_vs_measured")
    return "Each stage predicted by a fit that had not seen it, against its measurement."


EXACT = 1e-9      # where a logarithmic axis shows what is the same to the last bit


def ablations(directory: Path, rows: Sequence[Ablation]) -> str:
    """Speed-up against divergence; the Pareto front of each model and workload joined by a line."""
    figure, axes = plt.subplots(figsize=(7.0, 5.6))
    shown = [r for r in rows if r.speed_up and r.divergence and r.speed_up_provenance == "measured"]
    groups = dict.fromkeys((r.model, r.workload, r.baseline) for r in shown)
    for colour, group in zip([BLUE, ORANGE, GREEN, "#CC79A7", "#56B4E9", "#E69F00"], groups, strict=False):
        members = [r for r in shown if (r.model, r.workload, r.baseline) == group]
        x = [max(r.divergence.relative_l2, EXACT) for r in members]
        y = [r.speed_up.value for r in members]
        errors = [[r.speed_up.value - r.speed_up.low for r in members], [r.speed_up.high - r.speed_up.value for r in members]]
        axes.errorbar(x, y, yerr=errors, fmt="o", ms=4, lw=1, capsize=2, color=colour,
                      label=_literal(f"{group[0]}, {group[1]}, against {group[2]}"))
        front = sorted((max(r.divergence.relative_l2, EXACT), r.speed_up.value) for r in members if r.on_front)
        axes.plot(*zip(*front, strict=True), "-", lw=1, color=colour, alpha=0.6)
        for r, at_x, at_y in zip(members, x, y, strict=True):
            axes.annotate(_literal(r.recipe), (at_x, at_y), xytext=(4, 3), textcoords="offset points", fontsize=6)
    axes.axhline(1.0, color=GREY, lw=1, ls=":")
    axes.set(xscale="log", yscale="log", ylabel="speed-up over the baseline (measured)",
             xlabel="relative L2 of the latents from the baseline's (measured; left edge: identical)",
             title="What a recipe gains, and how far its output moves")
    axes.legend(fontsize=8)
    _save(figure, directory, "ablations")
    return ("Speed-up against divergence of the latents after the whole trajectory, same seed and weights; lines: what no "
            "other recipe beats in both. Weights are random: the divergence says nothing of how a picture looks.")


def waterfall(directory: Path, bars: list[Bar]) -> str:
    """Minutes per GPU-hour, factor by factor, on a log axis."""
    figure, axes = plt.subplots(figsize=(7.0, 0.55 * len(bars) + 1.2))
    floor = min(b.value for b in bars) / 4
    for i, bar in enumerate(bars):
        axes.barh(i, bar.value - floor, left=floor, color=PROVENANCE_COLOURS[bar.provenance],
                  hatch="//" if bar.extra else None, edgecolor="white")
        axes.text(bar.value * 1.08, i, f"{bar.value:.3g}" + (f"  (×{bar.multiplier:.3g})" if i else ""), va="center",
                  fontsize=9)
    axes.set_yticks(range(len(bars)), [_wrap(b.factor) for b in bars], fontsize=8)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set(xscale="log", xlabel="minutes of video per GPU-hour (log)",
             xlim=(floor, max(b.value for b in bars) * 12))
    used = dict.fromkeys(b.provenance for b in bars)
    axes.legend(handles=[mpl.patches.Patch(color=PROVENANCE_COLOURS[p], label=p) for p in used], fontsize=8,
                loc="lower right")
    _save(figure, directory, "waterfall")
    return "From the pencil estimate to the calibrated figure; each bar is the one before times its factor."


def throughput_vs_latency(directory: Path, document: dict[str, Any]) -> Path:
    """A curve a policy, from `serve-sim --json`'s document -> the SVG's path."""
    directory.mkdir(parents=True, exist_ok=True)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots()
        for policy, colour in zip(document["policies"], (GREY, ORANGE, GREEN, BLUE), strict=True):
            loads = [load for load in policy["loads"] if not load["saturated"]]
            x = [load["videos_per_hour"] for load in loads]
            axes.plot(x, [load["latency_s"]["p50"] for load in loads], "o-", color=colour, ms=4, label=policy["name"])
            axes.plot(x, [load["latency_s"]["p95"] for load in loads], "--", color=colour, lw=1)
            axes.axvline(policy["saturation"]["videos_per_hour"], color=colour, lw=0.8, ls=":")
        axes.set(yscale="log", xlabel="videos an hour, one device", ylabel="latency of a request (s)",
                 title=_literal(f"{document['model']}, {document['recipe']}: {document['provenance']}"))
        axes.legend(fontsize=8, title="p50 (dashed: p95; dotted line: at most)", title_fontsize=8)
        _save(figure, directory, "throughput_vs_latency")
    return directory / "throughput_vs_latency.svg"


def tornado(directory: Path, swings: list[Swing]) -> str:
    """The fleet with one factor varied at a time, on a log axis; the widest bar on top."""
    figure, axes = plt.subplots(figsize=(7.0, 0.5 * len(swings) + 1.2))
    for i, swing in enumerate(swings):
        low, high = sorted(zip(swing.fleet, swing.settings, strict=True))
        colour = next((c for word, c in PROVENANCE_COLOURS.items() if swing.source.startswith(word)), GREY)
        axes.barh(i, high[0] - low[0], left=low[0], color=colour, edgecolor="white")
        axes.text(low[0] / 1.05, i, _literal(low[1]), va="center", ha="right", fontsize=8)
        axes.text(high[0] * 1.05, i, _literal(high[1]), va="center", fontsize=8)
    ends = [f for swing in swings for f in swing.fleet]
    axes.set_yticks(range(len(swings)), [_wrap(s.factor) for s in swings], fontsize=8)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set(xscale="log", xlabel="GPUs that serve the demand (log)", xlim=(min(ends) / 4, max(ends) * 4))
    used = {c: word for word, c in PROVENANCE_COLOURS.items() if any(s.source.startswith(word) for s in swings)}
    axes.legend(handles=[mpl.patches.Patch(color=c, label=word) for c, word in {**used, GREY: "stated or chosen"}.items()],
                fontsize=8, loc="lower right")
    _save(figure, directory, "tornado")
    return ("The fleet of row A16 with one factor varied at a time, within its measured interval or a stated range; the "
            "setting stands at each end.")


def _forwards(record: PointRecord) -> int:
    return 2 if record.point["workload"]["guidance"] == "cfg" else 1


def _literal(name: str) -> str:
    """A user's name as matplotlib shows it: $ opens no formula, a leading _ does not hide it from the legend."""
    return (" " if name.startswith("_") else "") + one_line(name).replace("$", r"\$")


def _wrap(text: str, width: int = 34) -> str:
    return "\n".join(textwrap.wrap(text, width))


def _save(figure: plt.Figure, directory: Path, name: str) -> None:
    figure.savefig(directory / f"{name}.svg", metadata={"Date": None})
    figure.savefig(directory / f"{name}.png", dpi=150)
    plt.close(figure)
