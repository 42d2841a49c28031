"""`ldt-bench analytic`: the chain, its waterfall, the cross-model table and the tornado, for people and as JSON."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from bench.calibrate.analytic import Assumptions, Row, chain
from bench.calibrate.cross_model import DTYPE, CrossRow, Rates, Unit, cross_model
from bench.calibrate.demand import Demand, Headroom
from bench.calibrate.sensitivity import Swing, calibrated_base, pencil_base, sensitivity
from bench.calibrate.waterfall import Bar, waterfall
from bench.core.errors import UserError, nearest
from bench.core.load import load, names
from bench.core.spec import Gpu
from bench.core.units import seconds, si
from bench.report.tables import chain_table, table, waterfall_table

if TYPE_CHECKING:
    from bench.calibrate.measured_chain import MeasuredChain

GPU = "h100-sxm"
"""The pencil's card."""


@dataclass(frozen=True)
class Analysis:
    """Everything the chain says."""

    rows: list[Row]
    bars: list[Bar]
    units: list[CrossRow]
    swings: list[Swing]
    """Empty where not asked for."""
    measured: "MeasuredChain | None"


def analyse(directory: Path | None, gpu: str | None, *, tornado: bool) -> Analysis:
    """gpu: whose datasheet the cross-model table is taken at; the calibrated card's own by default, else the H100's.

    Raises UserError for an unknown card and a calibration that says nothing of the chain's minute."""
    if gpu is not None and gpu not in names("gpus"):
        raise UserError(f"--gpu {gpu!r} is not one of {', '.join(names('gpus'))}{nearest(gpu, names('gpus'))}")
    a, demand, headroom = Assumptions(), Demand(), Headroom()
    if directory is None:
        swings = sensitivity(pencil_base(a), demand, headroom) if tornado else []
        return Analysis(chain(a, demand, headroom), waterfall(a), cross_model(a, load(Gpu, gpu or GPU)), swings, None)
    from bench.calibrate.calibrate import load_or_calibrate  # scipy, and the prediction brings torch
    from bench.calibrate.measured_chain import measured_chain

    calibration = load_or_calibrate(directory)
    measured = measured_chain(a, calibration, directory)
    own = measured.card is not None and DTYPE in measured.card.peak_flops_per_s
    card = load(Gpu, gpu or (calibration.gpu if own else GPU))
    swings = sensitivity(calibrated_base(a, measured.sora, calibration.fit_for(None)), demand, headroom) if tornado else []
    return Analysis(
        rows=chain(a, demand, headroom, measured=measured), measured=measured, swings=swings,
        bars=waterfall(a, calibration.reference, measured.sora),
        units=cross_model(a, card, measured.ceilings, measured.card, measured.units_s))


def analysis_document(found: Analysis) -> dict[str, Any]:
    """Keys may be added, never renamed."""
    m = found.measured
    document: dict[str, Any] = {
        "rows": [r.as_dict() for r in found.rows], "waterfall": [b.as_dict() for b in found.bars],
        "cross_model": [u.as_dict() for u in found.units], "warnings": m.warnings if m else [],
    }
    if found.swings:
        document["sensitivity"] = [s.as_dict() for s in found.swings]
    if m is not None:
        document["same_clip"] = [c.as_dict() for c in m.clips]
        document["training_flop_over_forward_flop"] = m.training.ratio | {
            "points": list(m.training.points), "provenance": "measured"} if m.training else None
    return document


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

    def usd(q: dict[str, float] | None) -> str:
        return "–" if q is None else f"{q['low']:.2g} to {q['high']:.2g}"

    def calibrated(row: CrossRow) -> str:
        q = row.calibrated_s
        return f"{seconds(q['value'])} ({seconds(q['low'])} to {seconds(q['high'])}), {row.calibrated_how}" if q else "–"

    title = f"A13 with time (FLOPs and bytes counted, latents alone; roofline at the {sheet.words}: claimed"
    title += f"; at the {ceilings[0].words}: extrapolated)" if ceilings else ")"
    return table(title, "unit of output", "#FLOP", "#bytes, least", "#FLOP/B", "at the datasheet",
                 *(["at the ceilings", "calibrated", "#USD"] if ceilings else ["#USD", "note"]), rows=[
        (r.unit.name, si(r.unit.flops, "FLOP"), si(r.unit.bytes, "B"), f"{r.unit.flops / r.unit.bytes:,.3g}",
         at(r.datasheet, r.unit),
         *([at(*r.ceilings) if r.ceilings else "–", calibrated(r), usd(r.usd)] if ceilings else [usd(r.usd), r.unit.note]))
        for r in rows])


def same_clip_table(measured: "MeasuredChain") -> Table:
    """The same clip by diffusion and token by token, on this device."""
    return table(f"The same clip, made both ways (measured on {measured.gpu}; bytes modelled)", "model and clip", "stage",
                 "#calls", "#seconds", "#FLOP/s", "#of GEMM", "#bytes/s", "#of copy", "bound", rows=[
        (f"{c.model} {c.workload}" if i == 0 else "", stage, f"{s['calls']:,.0f}", f"{s['seconds']:.3g}",
         si(s["flops_per_s"], "FLOP/s"), f"{s['of_gemm_ceiling']:.0%}", si(s["bytes_modelled_per_s"], "B/s"),
         f"{s['of_copy_ceiling']:.0%}", c.bound if i == 0 else "")
        for c in measured.clips for i, (stage, s) in enumerate(c.stages.items())])


def sensitivity_table(swings: Iterable[Swing], calibrated: bool) -> Table:
    """The tornado."""
    def pair(values: tuple[float, float], digits: str) -> str:
        return f"{values[0]:{digits}} to {values[1]:{digits}}"

    base = "calibrated" if calibrated else "corrected, at 100 % of the datasheet"
    return table(f"What moves the answer, each alone ({base})",
                 "factor", "from, to", "#minutes per GPU-hour", "#fleet, GPUs", "#fold", "range", rows=[
        (s.factor, " to ".join(s.settings), pair(s.minutes, ".3g"), pair(s.fleet, ",.3g"), f"{s.fold:.2f}", s.source)
        for s in swings])
