"""Every figure by name: its title, and the function that draws it.

A figure is one function, Result -> Drawing or None where there is nothing to draw, and one line
here.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from bench.core.units import MINUTES_AN_HOUR
from bench.report.figures.ablations import ablations
from bench.report.figures.accuracy import predicted_vs_measured
from bench.report.figures.ceilings import bandwidth_vs_size, ceilings
from bench.report.figures.drawing import FOR_PRINT, FORMATS, STYLE, Drawing, Picture, save
from bench.report.figures.efficiencies import efficiencies
from bench.report.figures.latency import latency_vs_tokens
from bench.report.figures.memory import memory
from bench.report.figures.pencil import tornado, waterfall
from bench.report.figures.rates import rates
from bench.report.figures.roofline import roofline
from bench.report.figures.serving import throughput_vs_latency
from bench.report.figures.stages import stage_split
from bench.report.figures.telemetry import device_over_time
from bench.report.result import Result
from bench.studies.pencil.sensitivity import Swing
from bench.studies.pencil.waterfall import Bar

WATERFALL = f"{MINUTES_AN_HOUR.capitalize()}, factor by factor"
FIGURES: dict[str, tuple[str, Callable[[Result], Drawing | None]]] = {
    "rates": ("Minutes of video per hour, by recipe or card", rates),
    "waterfall": (WATERFALL, lambda result: waterfall(result.bars) if result.reference else None),
    "tornado": (
        "What moves the headline most, each alone",
        lambda result: tornado(result.swings) if result.swings else None,
    ),
    "predicted_vs_measured": ("Predicted and measured seconds", predicted_vs_measured),
    "latency_vs_tokens": ("One forward of the denoiser", latency_vs_tokens),
    "roofline": ("Roofline", roofline),
    "efficiencies": ("Efficiency by operator class", efficiencies),
    "stage_split": ("Shares of a video's seconds", stage_split),
    "memory": ("Memory of each point", memory),
    "ablations": (
        "Speed-up of each recipe, and divergence of its output",
        lambda result: ablations(result.ablations),
    ),
    "device_over_time": ("Clocks, power and temperature", device_over_time),
    "ceilings": ("Best rate of each probe", ceilings),
    "bandwidth_vs_size": ("Memory bandwidth by size of an array", bandwidth_vs_size),
}
"""The figures of a report, in its order."""


def save_all(
    directory: Path, result: Result, formats: Sequence[str] = FORMATS
) -> dict[str, Picture]:
    """Draw every figure of a result that there is data for into `directory` -> {name: picture}."""
    drawings = {name: (title, draw, result) for name, (title, draw) in FIGURES.items()}
    return _save(directory, drawings, formats)


def save_chain(directory: Path, bars: list[Bar], swings: list[Swing] | None) -> dict[str, Picture]:
    """The figures of `analytic --figures`."""
    drawings: dict[str, tuple[str, Callable[..., Drawing | None], Any]] = {
        "waterfall": (WATERFALL, waterfall, bars)
    }
    if swings:
        drawings["tornado"] = ("The factors that move the fleet most", tornado, swings)
    return _save(directory, drawings, FOR_PRINT)


def save_queue(directory: Path, document: dict[str, Any]) -> Path:
    """The figure of `serve-sim`, from its document -> the SVG's path."""
    name = "throughput_vs_latency"
    drawings = {name: ("Throughput against latency", throughput_vs_latency, document)}
    _save(directory, drawings, FOR_PRINT)
    return directory / f"{name}.svg"


def _save(
    directory: Path,
    drawings: Mapping[str, tuple[str, Callable[..., Drawing | None], Any]],
    formats: Sequence[str],
) -> dict[str, Picture]:
    """drawings: name -> title, function, and what it draws."""
    directory.mkdir(parents=True, exist_ok=True)
    pictures = {}
    with plt.style.context(STYLE):
        for name, (title, draw, subject) in drawings.items():
            drawing = draw(subject)
            if drawing is not None:
                pictures[name] = save(drawing, directory, name, title, formats)
    return pictures
