"""The pencil estimate: its rows, its waterfall, other models beside it, and its swings."""

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bench.core.quantity import Quantity
from bench.core.reference import SOURCE
from bench.core.row import Row
from bench.core.units import MINUTES_AN_HOUR, seconds
from bench.count.closed import dit as closed_form
from bench.report.chain import Analysis
from bench.report.numbers import (
    digits,
    percent,
    printed,
    three,
    traffic,
    traffic_rate,
    whole,
    work,
    work_rate,
)
from bench.report.tables.table import (
    PROVENANCES,
    Cell,
    Table,
    number,
    numbers,
    quantity,
    span,
    table,
)
from bench.studies.pencil.cross_model import CrossRow, Rates, Unit
from bench.studies.pencil.scenario import Scenario
from bench.studies.pencil.sensitivity import Swing
from bench.studies.pencil.waterfall import Bar

if TYPE_CHECKING:
    from bench.studies.pencil.measured import MeasuredChain


def analysis_tables(found: Analysis) -> list[Table]:
    """In the order they are read; with --sensitivity its table alone."""
    if found.swings:
        return [sensitivity_table(found.swings, found.measured is not None)]
    tables = [chain_table(found.rows), waterfall_table(found.bars)]
    if found.scenario.is_published:  # A13's models are the article's, at its minute
        tables.append(cross_model_table(found.units))
    if found.measured is not None and found.measured.clips:
        tables.append(same_clip_table(found.measured))
    return tables


def said_of(s: Scenario) -> str:
    """What was set, and what is counted for it."""
    params = closed_form.dit_parameters(s.model.denoiser)
    changed = ", ".join(f"{name} {value:,g}" for name, value in s.changed.items())
    return (
        f"assumed by you: {changed}; computed by the pencil's rules; counted for"
        f" {s.model.name} ({params / 1e9:.3g} B parameters) at {s.workload.name}; what was printed"
        " is of the published assumptions and left out"
    )


def chain_table(rows: Iterable[Row]) -> Table:
    """A1 to A17: as printed, computed, corrected and calibrated."""
    return table(
        "The pencil estimate, row by row",
        [
            "row",
            "quantity",
            numbers("printed"),
            numbers("computed"),
            numbers("corrected"),
            numbers("calibrated"),
            "unit",
            "agreement, note",
        ],
        [
            [
                r.id,
                r.quantity,
                number(r.printed, printed),
                number(r.computed, printed),
                number(r.corrected, printed),
                quantity(r.calibrated),
                r.unit,
                "; ".join(filter(None, (r.agreement, r.note))),
            ]
            for r in rows
        ],
        note=f"printed: claimed; computed and corrected: counted; calibrated: extrapolated; source:"
        f" {SOURCE}",
    )


def waterfall_table(bars: Iterable[Bar]) -> Table:
    """Each row has a provenance of its own."""
    return table(
        f"{MINUTES_AN_HOUR.capitalize()}, factor by factor",
        ["factor", numbers("times"), numbers("minutes per hour"), "provenance"],
        [
            [b.factor, number(b.multiplier, provenance=b.provenance), _minutes(b), b.provenance]
            for b in bars
        ],
    )


def _minutes(b: Bar) -> Cell:
    """With its interval, where it has one of its own."""
    if b.interval is None:
        return number(b.value, provenance=b.provenance)
    return replace(quantity(Quantity(b.value, *b.interval)), provenance=b.provenance)


def cross_model_table(rows: Iterable[CrossRow]) -> Table:
    """A13 with time: the datasheet's roofline, and with a calibration this device's."""
    rows = list(rows)
    sheet, ceilings = rows[0].datasheet, rows[0].ceilings
    rates = f"roofline at the {sheet.words}: claimed"
    if ceilings:
        rates += f"; at the {ceilings[0].words}: extrapolated"
    last = ["at the ceilings", "calibrated", numbers("USD")] if ceilings else ["USD", "note"]
    return table(
        "A13 with time",
        [
            "unit of output",
            numbers("FLOP"),
            numbers("bytes, least"),
            numbers("FLOP/B"),
            "at the datasheet",
            *last,
        ],
        [
            [
                r.unit.name,
                number(r.unit.flops, work),
                number(r.unit.bytes, traffic),
                number(r.unit.flops / r.unit.bytes, digits(3)),
                _at(r.datasheet, r.unit),
                *(_device_cells(r) if ceilings else (_usd(r), r.unit.note)),
            ]
            for r in rows
        ],
        note=f"FLOPs and bytes counted, latents alone; {rates}",
    )


def _at(rates: Rates, unit: Unit) -> str:
    return f"{seconds(unit.seconds(rates))}, {unit.bound(rates)}"


def _device_cells(row: CrossRow) -> list[Cell | str | None]:
    at_ceilings = _at(*row.ceilings) if row.ceilings else None
    known = quantity(row.calibrated_s, seconds).text
    calibrated = f"{known}, {row.calibrated_how}" if row.calibrated_s else None
    return [at_ceilings, calibrated, _usd(row)]


def _usd(row: CrossRow) -> Cell | None:
    return span(row.usd.low, row.usd.high, digits(2)) if row.usd else None


def same_clip_table(measured: "MeasuredChain") -> Table:
    """The same clip by diffusion and token by token, on this device."""
    return table(
        "The same clip, made both ways",
        [
            "model and clip",
            "stage",
            numbers("calls"),
            numbers("seconds"),
            numbers("FLOP/s"),
            numbers("of GEMM"),
            numbers("bytes/s"),
            numbers("of copy"),
            "bound",
        ],
        [
            [
                f"{clip.model} {clip.workload}" if i == 0 else "",
                stage,
                *_clip_cells(done),
                clip.bound if i == 0 else "",
            ]
            for clip in measured.clips
            for i, (stage, done) in enumerate(clip.stages.items())
        ],
        note=f"measured on {measured.gpu}; bytes modelled",
    )


def _clip_cells(done: dict[str, Any]) -> list[Cell]:
    return [
        number(done["calls"], whole),
        number(done["seconds"]),
        number(done["flops_per_s"], work_rate),
        number(done["of_gemm_ceiling"], percent(0)),
        number(done["bytes_modelled_per_s"], traffic_rate),
        number(done["of_copy_ceiling"], percent(0)),
    ]


def sensitivity_table(swings: Iterable[Swing], calibrated: bool) -> Table:
    """The tornado: each factor varied alone."""
    base = "calibrated" if calibrated else "corrected, at 100 % of the datasheet"
    return table(
        "What moves the answer, each alone",
        [
            "factor",
            "from, to",
            numbers("minutes per hour"),
            numbers("fleet, GPUs"),
            numbers("fold"),
            "range",
        ],
        [
            [
                s.factor,
                " to ".join(s.settings),
                span(*s.minutes, three),
                span(*s.fleet, three) if s.fleet else None,
                number(s.fold, lambda fold: f"{fold:.2f}"),
                s.source,
            ]
            for s in swings
        ],
        note=base,
    )


def headline_swings_table(swings: Iterable[Swing]) -> Table:
    """The tornado of a result's own headline."""
    return table(
        "What moves the headline, each alone",
        ["factor", "from, to", numbers("minutes per hour"), numbers("fold"), "range"],
        [
            [
                s.factor,
                " to ".join(s.settings),
                replace(span(*s.minutes), provenance=_word(s.source)),  # as `from, to` says
                number(s.fold, lambda fold: f"{fold:.2f}", provenance=_word(s.source)),
                s.source,
            ]
            for s in swings
        ],
        note="provenance: by the range",
    )


def _word(source: str) -> str:
    """The provenance that a range's source begins with; a stated range is claimed."""
    return next((word for word in PROVENANCES if source.startswith(word)), "claimed")
