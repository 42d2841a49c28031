"""A point predicted from published evidence: on one card, or on many beside one another."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bench.core.quantity import Quantity
from bench.core.units import seconds
from bench.report.numbers import binary, percent, three, whole
from bench.report.tables.table import Cell, Column, Table, number, numbers, quantity, table

if TYPE_CHECKING:
    from bench.calibrate.evidence.forecast import Forecast
    from bench.calibrate.fitting.accuracy import Errors
    from bench.calibrate.scaling.check import MeasuredStep
    from bench.calibrate.scaling.forecast import Base, MeshForecast
    from bench.results.records import CeilingsRecord

SHOWN = 8  # meshes of a table; --json has them all


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
    """One point on several cards, or with several recipes: in the order given."""
    recipes = {f.point.recipe.name for f in rows}
    return table(
        title,
        [
            "card",
            *(["recipe"] if len(recipes) > 1 else []),
            numbers("seconds"),
            numbers("min/GPU-h"),
            numbers("$/min"),
            Column("price of", detail=True),
            numbers("kWh/min, at most", detail=True),
            "fits",
            "rows",
            numbers("held out"),
            numbers("published"),
        ],
        [_answer_cells(f, with_recipe=len(recipes) > 1) for f in rows],
        note="90 %; rows: the card's published ones; published: of this very point, run anyhow",
    )


def _answer_cells(f: "Forecast", *, with_recipe: bool) -> list[Cell | str | None]:
    price = f.gpu.price_usd_per_hour
    error = f.held_out.error if f.held_out else None
    return [
        f.gpu.name,
        *([f.point.recipe.name] if with_recipe else []),
        quantity(f.video_s, whole),
        number(f.minutes_per_gpu_hour.value),
        None if f.usd_per_minute is None else _dollars(f.usd_per_minute),
        price.date if price else None,
        number(f.kwh_per_minute.value),
        _yes(f.fits_memory),
        _rows(f),
        number(error, percent()),
        ", ".join(whole(o.seconds) for o in f.same_point) or None,
    ]


def _dollars(usd: Quantity) -> Cell:
    """The range alone: it is mostly the price's."""
    return Cell(f"{three(usd.low)} to {three(usd.high)}", usd.value)


def by_price(rows: Sequence["Forecast"]) -> list["Forecast"]:
    """Cheapest a minute first; cards without a price after them, fastest first; cards that the
    weights do not fit last."""
    return sorted(
        rows,
        key=lambda f: (
            not f.fits_memory,
            f.usd_per_minute is None,
            f.usd_per_minute.value if f.usd_per_minute else f.video_s.value,
        ),
    )


def _rows(f: "Forecast") -> str:
    e = f.evidence
    if e.kind == "published":
        return str(e.n)
    return f"0 ({e.kind}: {e.n_architecture})" if e.n_architecture else f"0 ({e.kind})"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def mesh_table(title: str, found: Sequence["MeshForecast"]) -> Table:
    """Meshes on so many cards, the best first: the first few, and single cards."""
    shown = [m for i, m in enumerate(found) if i < SHOWN or m.parallel.of_one_sample == 1]
    return table(
        title,
        [
            "mesh",
            numbers("seconds a video"),
            numbers("computing"),
            numbers("sending"),
            numbers("on one card"),
            numbers("videos at once"),
            numbers("min/GPU-h"),
            numbers("$/min"),
            numbers("kWh/min, at most", detail=True),
            numbers("efficiency"),
            "fits",
            "provenance",
        ],
        [[mesh_name(m), *_mesh_cells(m)] for m in shown],
        note=f"{len(shown)} of {len(found)} meshes; efficiency: of one card's seconds",
    )


def _mesh_cells(m: "MeshForecast") -> list[Cell | str | None]:
    return [
        quantity(m.video_s, seconds),
        number(m.parts.denoise_s, seconds),
        number(m.parts.communication_s, seconds),
        number(m.parts.serial_s, seconds),
        number(m.parallel.data, whole),
        number(m.minutes_per_gpu_hour.value),
        None if m.usd_per_minute is None else _dollars(m.usd_per_minute),
        number(m.kwh_per_minute.value if m.kwh_per_minute else None),
        number(m.efficiency, percent(0)),
        None if m.fits_memory is None else _yes(m.fits_memory),
        m.provenance,
    ]


def mesh_name(m: "MeshForecast") -> str:
    """Single cards side by side are what a mesh is compared with."""
    if m.parallel.of_one_sample > 1:
        return m.parallel.words()
    return "1 card" if m.parallel.data == 1 else f"{m.parallel.data} single cards"


def scale_table(title: str, rows: Sequence[tuple["Base", "MeshForecast"]]) -> Table:
    """The best mesh of each kind and number of cards, in the order given."""
    return table(
        title,
        [
            "card",
            numbers("cards"),
            "best mesh",
            numbers("seconds a video"),
            numbers("min/GPU-h"),
            numbers("$/min"),
            numbers("efficiency"),
            "provenance",
        ],
        [
            [
                base.gpu.name,
                str(m.parallel.ranks),
                mesh_name(m),
                quantity(m.video_s, seconds),
                number(m.minutes_per_gpu_hour.value),
                None if m.usd_per_minute is None else _dollars(m.usd_per_minute),
                number(m.efficiency, percent(0)),
                m.provenance,
            ]
            for base, m in rows
        ],
        note="90 % intervals; efficiency: of one card's seconds",
    )


def steps_on_ranks_table(steps: Sequence["MeasuredStep"]) -> Table:
    """Each step on several ranks beside what was predicted of it."""
    return table(
        "A step on several ranks, predicted before it was measured",
        [
            "point",
            "mesh",
            numbers("one rank", "measured"),
            numbers("measured"),
            numbers("predicted", "fitted"),
            numbers("miss"),
            numbers("efficiency"),
            numbers("predicted efficiency"),
            numbers("in collectives", detail=True),
            numbers("predicted in collectives", detail=True),
        ],
        [_step_cells(step) for step in steps],
        note="efficiency: one rank's seconds over those of all ranks of a sample; interval: 90 %,"
        " of the fit alone",
    )


def _step_cells(step: "MeasuredStep") -> list[Cell | str]:
    said = step.predicted
    miss = said.step_s.value / step.measured_s - 1
    assert step.record.group is not None
    return [
        f"{step.record.model} {step.record.workload}",
        step.record.group.mesh,
        number(said.one_rank_s, seconds),
        number(step.measured_s, seconds),
        quantity(said.step_s, seconds),
        number(miss, lambda share: f"{share:+.0%}"),
        number(step.efficiency, percent()),
        number(said.efficiency, percent()),
        number(step.in_collectives_s, seconds),
        number(said.communication_s, seconds),
    ]


def steps_errors_table(errors: Mapping[str, "Errors | None"]) -> Table:
    """Errors of bench.calibrate.scaling.check."""
    words = {
        "before": "predicted before it was measured, from one rank and the links",
        "held_out": "and times one factor that the other points' misses gave",
        "constant_efficiency": "baseline: the other points' mean efficiency",
    }
    found = {name: e for name, e in errors.items() if e is not None}
    return table(
        "Error of the steps on several ranks",
        ["how", numbers("median"), numbers("mean"), numbers("worst"), numbers("n")],
        [
            [
                words[name],
                *(number(share, percent()) for share in (e.median, e.mean, e.worst)),
                number(e.n, str),
            ]
            for name, e in found.items()
        ],
    )


def group_ceilings_table(record: "CeilingsRecord") -> Table:
    """Collectives of several ranks by message size, and what a rank keeps of its rates."""
    collectives = [probe for probe in record.probes if "ranks" in probe.shape]
    return table(
        f"Collectives on {record.ranks} ranks",
        ["collective", numbers("ranks"), numbers("sent by a rank"), numbers("seconds"), "rate"],
        [
            [
                probe.kind,
                number(probe.shape["ranks"], str),
                number(probe.bytes_moved, binary),
                number(probe.timing.median_s, seconds),
                number(probe.rate, lambda r: f"{r / 1e9:.3g} GB/s"),
            ]
            for probe in collectives
        ],
    )


def kept_table(record: "CeilingsRecord") -> Table:
    """Each rate with all ranks at work, as a share of the same rank's alone."""
    rates: dict[tuple[str, str], dict[int, float]] = {}
    for probe in record.probes:
        if "at_once" in probe.shape:
            size = probe.shape.get("bytes")
            rung = (probe.kind, "" if size is None else binary(size))
            rates.setdefault(rung, {})[probe.shape["at_once"]] = probe.rate
    return table(
        f"What a rank keeps of its rate while all {record.ranks} are at work",
        ["probe", "array", numbers("share")],
        [
            [kind, size, number(by[record.ranks] / by[1], percent())]
            for (kind, size), by in rates.items()
            if {1, record.ranks} <= by.keys()
        ],
    )
