"""Tables of `ldt-bench analytic`."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.table import Table

from bench.core.quantity import Quantity
from bench.core.units import seconds, si
from bench.report.chain import Analysis
from bench.report.tables.common import chain_table, duration, table, waterfall_table
from bench.studies.pencil.cross_model import CrossRow, Rates, Unit
from bench.studies.pencil.sensitivity import Swing

if TYPE_CHECKING:
    from bench.studies.pencil.measured import MeasuredChain


def analysis_tables(found: Analysis) -> list[Table]:
    """In the order they are read."""
    tables = [chain_table(found.rows), waterfall_table(found.bars), cross_model_table(found.units)]
    if found.measured is not None and found.measured.clips:
        tables.append(same_clip_table(found.measured))
    if found.swings:
        tables.append(sensitivity_table(found.swings, found.measured is not None))
    return tables


def cross_model_table(rows: Iterable[CrossRow]) -> Table:
    """A13 with time."""
    rows = list(rows)
    sheet, ceilings = rows[0].datasheet, rows[0].ceilings

    def at(rates: Rates, unit: Unit) -> str:
        return f"{seconds(unit.seconds(rates))}, {unit.bound(rates)}"

    def usd(q: Quantity | None) -> str:
        return "–" if q is None else f"{q.low:.2g} to {q.high:.2g}"

    def calibrated(row: CrossRow) -> str:
        q = row.calibrated_s
        return f"{duration(q)}, {row.calibrated_how}" if q else "–"

    title = (
        f"A13 with time (FLOPs and bytes counted, latents alone; roofline at the {sheet.words}:"
        " claimed"
    )
    title += f"; at the {ceilings[0].words}: extrapolated)" if ceilings else ")"
    return table(
        title,
        "unit of output",
        "#FLOP",
        "#bytes, least",
        "#FLOP/B",
        "at the datasheet",
        *(["at the ceilings", "calibrated", "#USD"] if ceilings else ["#USD", "note"]),
        rows=[
            (
                r.unit.name,
                si(r.unit.flops, "FLOP"),
                si(r.unit.bytes, "B"),
                f"{r.unit.flops / r.unit.bytes:,.3g}",
                at(r.datasheet, r.unit),
                *(
                    [at(*r.ceilings) if r.ceilings else "–", calibrated(r), usd(r.usd)]
                    if ceilings
                    else [usd(r.usd), r.unit.note]
                ),
            )
            for r in rows
        ],
    )


def same_clip_table(measured: "MeasuredChain") -> Table:
    """The same clip by diffusion and token by token, on this device."""
    return table(
        f"The same clip, made both ways (measured on {measured.gpu}; bytes modelled)",
        "model and clip",
        "stage",
        "#calls",
        "#seconds",
        "#FLOP/s",
        "#of GEMM",
        "#bytes/s",
        "#of copy",
        "bound",
        rows=[
            (
                f"{c.model} {c.workload}" if i == 0 else "",
                stage,
                f"{s['calls']:,.0f}",
                f"{s['seconds']:.3g}",
                si(s["flops_per_s"], "FLOP/s"),
                f"{s['of_gemm_ceiling']:.0%}",
                si(s["bytes_modelled_per_s"], "B/s"),
                f"{s['of_copy_ceiling']:.0%}",
                c.bound if i == 0 else "",
            )
            for c in measured.clips
            for i, (stage, s) in enumerate(c.stages.items())
        ],
    )


def sensitivity_table(swings: Iterable[Swing], calibrated: bool) -> Table:
    """The tornado."""

    def pair(values: tuple[float, float], digits: str) -> str:
        return f"{values[0]:{digits}} to {values[1]:{digits}}"

    base = "calibrated" if calibrated else "corrected, at 100 % of the datasheet"
    return table(
        f"What moves the answer, each alone ({base})",
        "factor",
        "from, to",
        "#minutes per GPU-hour",
        "#fleet, GPUs",
        "#fold",
        "range",
        rows=[
            (
                s.factor,
                " to ".join(s.settings),
                pair(s.minutes, ".3g"),
                pair(s.fleet, ",.3g"),
                f"{s.fold:.2f}",
                s.source,
            )
            for s in swings
        ],
    )
