"""A point predicted from published evidence: on one card, or on many beside one another."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench.core.units import seconds
from bench.report.numbers import percent
from bench.report.tables.table import Table, number, numbers, quantity, table

if TYPE_CHECKING:
    from bench.calibrate.evidence.forecast import Forecast


def forecast_table(title: str, f: "Forecast") -> Table:
    """`predict` on one card."""
    return table(
        title,
        ["quantity", numbers("value", f.provenance)],
        [
            ["one denoising step", quantity(f.step_s, seconds)],
            *([f"  {name}, whole video", quantity(q, seconds)] for name, q in f.stages.items()),
            ["whole video", quantity(f.video_s, seconds)],
            ["minutes of video per GPU-hour", quantity(f.minutes_per_gpu_hour)],
            ["dollars per minute", quantity(f.usd_per_minute)],
            ["kWh per minute, at the power limit", number(f.kwh_per_minute.value)],
            ["weights fit memory", _yes(f.fits_memory)],
        ],
        note="90 % intervals",
    )


def otherwise_table(runs: Sequence["Forecast"]) -> Table:
    """The same point on the same card, run in other ways."""
    return table(
        "Run in other ways",
        ["run as", numbers("seconds"), numbers("minutes per GPU-hour")],
        [
            [f.conditions.words(), quantity(f.video_s, seconds), quantity(f.minutes_per_gpu_hour)]
            for f in runs
        ],
    )


def answer_table(title: str, rows: Sequence["Forecast"]) -> Table:
    """One point on several cards, or with several recipes: cheapest first."""
    return table(
        title,
        [
            "card",
            "recipe",
            numbers("seconds"),
            numbers("min per GPU-hour"),
            numbers("$ per minute"),
            "price of",
            numbers("kWh per minute, at most", detail=True),
            "fits",
            "evidence",
            numbers("held out"),
            numbers("published"),
        ],
        [
            [
                f.gpu.name,
                f.point.recipe.name,
                quantity(f.video_s, seconds),
                number(f.minutes_per_gpu_hour.value),
                quantity(f.usd_per_minute),
                f.gpu.price_usd_per_hour.date if f.gpu.price_usd_per_hour else None,
                number(f.kwh_per_minute.value),
                _yes(f.fits_memory),
                _evidence(f),
                number(f.held_out.error if f.held_out else None, percent()),
                ", ".join(seconds(o.seconds) for o in f.same_point) or None,
            ]
            for f in rows
        ],
        note="90 % intervals; published: rows of this very point, however they were run",
    )


def by_price(rows: Sequence["Forecast"]) -> list["Forecast"]:
    """Cheapest a minute first; cards without a price after them, fastest first."""
    return sorted(
        rows,
        key=lambda f: (
            f.usd_per_minute is None,
            f.usd_per_minute.value if f.usd_per_minute else f.video_s.value,
        ),
    )


def _evidence(f: "Forecast") -> str:
    e = f.evidence
    if e.kind == "published":
        return f"{e.n} rows"
    return f"{e.kind}, {e.n_architecture} rows" if e.n_architecture else e.kind


def _yes(value: bool) -> str:
    return "yes" if value else "no"
