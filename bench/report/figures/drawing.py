"""How figures are drawn: one style, colours that markers repeat, axes with units, files for print
and for a glance."""

import textwrap
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import log10
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from bench.core.errors import one_line
from bench.report.tables.table import PROVENANCES
from bench.results.readings import Timing

STYLE = Path(__file__).with_name("paper.mplstyle")
FORMATS = ("svg", "png")
FOR_PRINT = ("svg", "pdf", "png")  # a PDF's font subset takes half of the time that a figure does
INK, PAPER = "#1b1f24", "#ffffff"  # as in the style; the page exchanges them in the dark
BLUE, ORANGE, GREEN, PURPLE, SKY, AMBER, GREY = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#E69F00",
    "#8C8C8C",
)
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, AMBER)
MARKERS = ("o", "s", "^", "D", "v", "P")
HATCHES = ("", "////", "\\\\\\\\", "xxxx", "||||", "----")  # no dots: an SVG draws each as a circle
STAGES = ("denoise_step", "vae_decode", "vae_encode", "text_encode", "condition_encode")
PROVENANCE_COLOURS = dict(zip(PROVENANCES, (GREY, BLUE, GREEN, ORANGE, PURPLE), strict=True))
PROVENANCE_HATCHES = dict(zip(PROVENANCES, ("", "////", "\\\\\\\\", "||||", "xxxx"), strict=True))


@dataclass(frozen=True)
class Drawing:
    """A figure and its caption: its contents, their provenance, the number of samples."""

    figure: plt.Figure
    caption: str


@dataclass(frozen=True)
class Picture:
    """A figure on disk: NAME.svg, NAME.png and, for print, NAME.pdf."""

    name: str
    title: str
    caption: str


def save(
    drawing: Drawing, directory: Path, name: str, title: str, formats: Sequence[str] = FORMATS
) -> Picture:
    """Write the figure in these formats; title and caption travel inside the SVG and the PDF."""
    words = one_line(drawing.caption)
    about = {
        "svg": {"Date": None, "Title": title, "Description": words},
        "pdf": {"CreationDate": None, "Title": title, "Subject": words},
        "png": {
            "Title": title,
            "Description": words.encode("latin-1", "replace").decode("latin-1"),
        },
    }
    with warnings.catch_warnings():
        # A user's name may have a glyph that the font lacks; the SVG has it as text.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        for kind in formats:
            drawing.figure.savefig(directory / f"{name}.{kind}", metadata=about[kind])
            # Laid out once: the layout takes half of the time of a drawing.
            drawing.figure.set_layout_engine("none")
    plt.close(drawing.figure)
    return Picture(name, title, words)


def stage_style(stage: str) -> dict[str, str]:
    """Colour and marker of a stage, the same in every figure."""
    i = STAGES.index(stage) if stage in STAGES else len(STAGES)
    return {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}


def log_axis(axis: mpl.axis.Axis, unit: str = "") -> None:
    """Log scale with SI prefixes at the ticks, and labels between the decades where there are fewer
    than two."""
    which = axis.axis_name
    getattr(axis.axes, f"set_{which}scale")("log")
    low, high = sorted(axis.get_view_interval())
    decades = log10(high / low)
    formatter = EngFormatter(unit=unit)
    axis.set_major_locator(LogLocator(numticks=6 if which == "x" else 8))
    axis.set_major_formatter(formatter)
    axis.set_minor_formatter(NullFormatter())
    if decades < 2.2:
        axis.set_major_locator(
            LogLocator(
                subs=(1.0, 2.0, 5.0) if decades > 0.7 else (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)
            )
        )


def bar_rows(axes: plt.Axes, rows: int) -> None:
    """Horizontal bars from top to bottom, each with its name written above it: long names fit a
    narrow figure."""
    axes.set_ylim(rows - 0.5, -0.75)
    axes.set_yticks([])
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)


def unique_handles(axes: plt.Axes) -> dict[str, object]:
    """Label -> the first handle that has it."""
    handles, labels = axes.get_legend_handles_labels()
    return dict(reversed(list(zip(reversed(labels), reversed(handles), strict=True))))


def literal(name: str, length: int = 38) -> str:
    """A user's name in a figure: on one line, not hidden by a leading _, its middle left out where
    it is long."""
    text = one_line(name)
    if len(text) > length:
        text = text[: length - length // 3 - 1] + "…" + text[-(length // 3) :]
    return (" " if text.startswith("_") else "") + text


def wrap(text: str, width: int = 60) -> str:
    return "\n".join(textwrap.wrap(one_line(text), width))


def legend_below(figure: plt.Figure, handles: Sequence | None = None, columns: int = 2) -> None:
    """Under the axes, where it hides nothing."""
    given = {"handles": handles} if handles is not None else {}
    figure.legend(loc="outside lower center", ncols=columns, **given)


def error_bars(
    values: Sequence[float], lows: Sequence[float], highs: Sequence[float]
) -> list[list[float]]:
    """As matplotlib takes them: distances below and above."""
    return [
        [max(0.0, v - low) for v, low in zip(values, lows, strict=True)],
        [max(0.0, high - v) for v, high in zip(values, highs, strict=True)],
    ]


def spread_of(counts: Sequence[int]) -> str:
    """'n = 3 to 60'."""
    return (
        f"n = {min(counts)}"
        if min(counts) == max(counts)
        else f"n = {min(counts)} to {max(counts)}"
    )


def samples_of(timings: Iterable[Timing]) -> str:
    """'n = 3 to 60 calls, 95 %'."""
    timings = list(timings)
    if not timings:
        return "their samples not in this result"
    unsure = any(t.confidence < 0.95 for t in timings)
    known = "under six of them their range" if unsure else "95 %"
    return f"{spread_of([t.n for t in timings])} calls, {known}"
