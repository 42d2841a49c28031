"""Clocks, power and temperature while the stages were timed."""

import matplotlib.pyplot as plt

from bench.report.figures.drawing import BLUE, GREY, ORANGE, Drawing, legend_below, unique_handles
from bench.report.result import Result
from bench.results.readings import Series

PANELS = (
    ("sm_clock_hz", "SM clock (MHz)", 1e-6),
    ("memory_clock_hz", "memory clock (MHz)", 1e-6),
    ("power_w", "power (W)", 1.0),
    ("temperature_c", "temperature (°C)", 1.0),
)


def device_over_time(result: Result) -> Drawing | None:
    """SM clock, power and temperature of the timed stages, laid end to end in the order they were
    measured."""
    series: list[tuple[str, Series]] = [
        (f"{r.label} {stage}", seen.series)
        for r in result.points
        for stage, seen in (r.telemetry or {}).items()
        if seen.series is not None and seen.series.t_s
    ]
    panels = [
        panel
        for panel in PANELS
        if any(v is not None for _, s in series for v in getattr(s, panel[0]))
    ]
    if not panels:
        return None
    figure, grid = plt.subplots(
        len(panels), figsize=(5.2, 1.25 * len(panels) + 0.7), sharex=True, squeeze=False
    )
    start, held = 0.0, 0
    for i, (_, s) in enumerate(series):
        length = max(s.t_s[-1], 1e-3) * (1 + 1 / max(len(s.t_s), 1))
        for axes, (name, _, factor) in zip(grid[:, 0], panels, strict=True):
            if i % 2:
                axes.axvspan(start, start + length, color=GREY, alpha=0.18, lw=0)
            seen = [
                (start + t, factor * v)
                for t, v in zip(s.t_s, getattr(s, name), strict=True)
                if v is not None
            ]
            if seen:
                axes.plot(
                    *zip(*seen, strict=True), color=BLUE, marker="." if len(seen) < 40 else "", ms=3
                )
            if name == "sm_clock_hz":
                slow = [
                    (start + t, factor * v)
                    for t, v, why in zip(s.t_s, s.sm_clock_hz, s.throttle_reasons, strict=True)
                    if v is not None and why and set(why) - {"gpu_idle"}
                ]
                held += len(slow)
                if slow:
                    axes.plot(
                        *zip(*slow, strict=True), "x", color=ORANGE, ms=4, label="clocks held down"
                    )
        start += length
    for axes, (_, words, _) in zip(grid[:, 0], panels, strict=True):
        axes.set_ylabel(words, fontsize=8)
    grid[-1, 0].set(xlabel="seconds of sampling, stages laid end to end", xlim=(0, start))
    if marked := unique_handles(grid[0, 0]):
        legend_below(figure, list(marked.values()))
    n = sum(len(s.t_s) for _, s in series)
    return Drawing(
        figure,
        f"What the card did while its stages were timed (measured by NVML, {n} samples of"
        f" {len(series)} stages in the order of the table; shading parts the stages; {held} samples"
        " with clocks held down).",
    )
