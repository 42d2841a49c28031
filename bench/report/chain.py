"""`ldt-bench analytic`: the chain, its waterfall, the cross-model table and the tornado, and their
JSON.  Needs neither torch nor scipy without a calibration: then it ends at published evidence."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.core.errors import UserError, nearest
from bench.core.load import load, names
from bench.core.reference import SOURCE
from bench.core.row import Row
from bench.core.specs.gpu import Gpu
from bench.core.specs.model import Model
from bench.core.specs.workload import Workload
from bench.count.closed import dit as closed_form
from bench.studies.pencil.analytic import scenario_rows
from bench.studies.pencil.cross_model import DTYPE, CrossRow, cross_model
from bench.studies.pencil.scenario import Scenario, published_scenario, scenario
from bench.studies.pencil.sensitivity import Swing, calibrated_base, pencil_base, sensitivity
from bench.studies.pencil.waterfall import Bar, waterfall

if TYPE_CHECKING:
    from bench.studies.pencil.measured import MeasuredChain
    from bench.studies.pencil.published import PublishedChain

GPU = "h100-sxm"
"""The pencil's card."""


@dataclass(frozen=True)
class Analysis:
    """The rows of the chain, and everything derived from them."""

    rows: list[Row]
    bars: list[Bar]
    units: list[CrossRow]
    swings: list[Swing]
    """Empty where not asked for."""
    measured: "MeasuredChain | None"
    published: "PublishedChain | None" = None
    """Where there is no calibration, what others published of the card."""
    scenario: Scenario = field(default_factory=published_scenario)


def analyse(
    directory: Path | None,
    gpu: str | None,
    *,
    tornado: bool,
    changes: Mapping[str, Any] | None = None,
) -> Analysis:
    """changes: other assumptions, by the names of bench.studies.pencil.scenario.  gpu: the card
    whose datasheet the cross-model table takes and whose published runs the waterfall ends at; the
    calibrated card by default, else the H100's.

    Raises UserError for an unknown card or assumption, a GPU beside a CPU's calibration (or the
    other way round), and a calibration that says nothing of the chain's minute."""
    if gpu is not None and gpu not in names("gpus"):
        raise UserError(
            f"--gpu {gpu!r} is not one of {', '.join(names('gpus'))}{nearest(gpu, names('gpus'))}"
        )
    s = scenario(changes or {})
    a, demand, headroom = s.a, s.demand, s.headroom
    of = None if s.is_published else (s.model, s.workload)
    if directory is None:
        published = _published(gpu or GPU, of)
        return Analysis(
            rows=scenario_rows(s, published if (gpu or GPU) == GPU else None),
            bars=waterfall(a, published=published, counted=of),
            units=cross_model(a, load(Gpu, gpu or GPU)),
            swings=sensitivity(pencil_base(a), demand, headroom) if tornado else [],
            measured=None,
            published=published,
            scenario=s,
        )
    from bench.calibrate.make import load_or_calibrate  # scipy, and the prediction brings torch
    from bench.calibrate.transfer import check_same_kind
    from bench.studies.pencil.measured import measured_chain

    calibration = load_or_calibrate(directory)
    if gpu is not None:
        check_same_kind(calibration, gpu)
    measured = measured_chain(a, calibration, directory, of)
    own = measured.card is not None and DTYPE in measured.card.peak_flops_per_s
    card = load(Gpu, gpu or (calibration.gpu if own else GPU))
    fit = calibration.fit_for(calibration.default_recipe)
    swings = (
        sensitivity(calibrated_base(a, measured.sora, fit), demand, headroom) if tornado else []
    )
    return Analysis(
        rows=scenario_rows(s, measured),
        measured=measured,
        swings=swings,
        bars=waterfall(a, calibration.reference, measured.sora, counted=of),
        scenario=s,
        units=cross_model(a, card, measured.ceilings, measured.card, measured.units_s),
    )


def _published(gpu: str, of: "tuple[Model, Workload] | None") -> "PublishedChain | None":
    """None for a card that nothing is published of, and no datasheet carries over to."""
    from bench.studies.pencil.published import published_chain

    try:
        return published_chain(gpu, of)
    except UserError:
        return None


def analysis_document(found: Analysis) -> dict[str, Any]:
    """Keys may be added, never renamed."""
    m = found.measured
    document: dict[str, Any] = {
        "rows": [r.as_dict() for r in found.rows],
        "waterfall": [b.as_dict() for b in found.bars],
        "cross_model": [u.as_dict() for u in found.units],
        "warnings": m.warnings if m else found.published.warnings if found.published else [],
        "evidence": _evidence(found),
        "source_url": SOURCE,
    }
    s = found.scenario
    if not s.is_published:
        document["assumed"] = {
            "set": dict(s.changed),
            "provenance": "claimed",
            "counted_model": s.model.name,
            "counted_workload": s.workload.name,
            "counted_params": closed_form.dit_parameters(s.model.denoiser),
        }
    if found.swings:
        document["sensitivity"] = [s.as_dict() for s in found.swings]
    if m is not None:
        document["same_clip"] = [c.as_dict() for c in m.clips]
        document["training_flop_over_forward_flop"] = (
            m.training.ratio.as_dict()
            | {"points": list(m.training.points), "provenance": "measured"}
            if m.training
            else None
        )
    return document


def _evidence(found: Analysis) -> dict[str, Any] | None:
    """What the calibrated column rests on."""
    if found.measured is not None:
        return {"kind": "records", "gpu": found.measured.gpu}
    if found.published is None:
        return None
    from bench.report.forecasts import evidence_document

    return evidence_document(found.published.fast.evidence)
