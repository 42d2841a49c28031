"""The documents of --json: the machine-readable contract.  Keys may be added, never renamed.  SI
units."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.calibrate.calibration import Calibration, Fit
from bench.calibrate.headline import headline_of
from bench.calibrate.predict import Estimate
from bench.calibrate.scaling.check import MeasuredStep, errors
from bench.core.quantity import Quantity
from bench.core.specs.point import Point
from bench.report.result import unsteady_words
from bench.results.records import OUTCOMES, CeilingsRecord, PointRecord
from bench.results.store import PAGE
from bench.results.video import MEASURED


def run_summary(
    directory: Path,
    report: Path,
    records: list[PointRecord | CeilingsRecord],
    calibration: Calibration | None,
) -> dict[str, Any]:
    """The last stdout line of `run`.  A point measured again on resume counts by its last
    outcome."""
    last = {r.fingerprint: r.outcome for r in records}
    counted = Counter(last.values())
    headline, missing = headline_of(directory, calibration)
    return {
        "result_dir": str(directory),
        "report": str(report),
        "report_html": str(report.with_name(PAGE)),
        "outcomes": {name: counted[name] for name in OUTCOMES},
        "headline": headline.model_dump() if headline else None,
        "headline_missing": missing,
        "unsteady": unsteady_words(records),
        "held_out": _held_out(calibration),
        "failed": [
            {"point": r.label, "outcome": r.outcome, "reason": r.reason}
            for r in {r.fingerprint: r for r in records}.values()
            if isinstance(r, PointRecord) and r.outcome not in MEASURED
        ],
    }


def _held_out(calibration: Calibration | None) -> dict[str, Any] | None:
    """How wrong the fit is on steps that it did not see."""
    fit = None if calibration is None else calibration.fit_for(None)
    if fit is None or fit.leave_one_out is None:
        return None
    one_mfu = fit.constant_mfu_baseline
    errors = fit.leave_one_out.model_dump()
    return errors | {"one_mfu_mean": None if one_mfu is None else one_mfu.mean}


def run_failed(records: list[PointRecord | CeilingsRecord]) -> bool:
    """A run's verdict: something ended in error or timeout, or no point ended ok.  Out of memory,
    unsupported and skipped are results."""
    last = {r.fingerprint: r for r in records}.values()
    measured = any(isinstance(r, PointRecord) and r.outcome in MEASURED for r in last)
    return not measured or any(r.outcome in ("error", "timeout") for r in last)


def steps_document(steps: Sequence[MeasuredStep]) -> dict[str, Any]:
    """Steps on several ranks beside what was predicted of them."""
    found = {name: e.model_dump() for name, e in errors(steps).items() if e is not None}
    return {
        "steps": [
            {
                "point": f"{step.record.model} {step.record.workload}",
                "mesh": step.record.group.mesh,
                "measured_s": step.measured_s,
                "efficiency": step.efficiency,
                "predicted": step.predicted.model_dump(mode="json", exclude={"messages"}),
            }
            for step in steps
            if step.record.group is not None
        ],
        "errors": found,
    }


def calibration_document(calibration: Calibration) -> dict[str, Any]:
    """`calibrate --json`: the headline recipe's fit at the top, every recipe's under by_recipe;
    recipes that share a fit have the same one there, and `recipes` names them."""
    by_recipe = {
        name: _fit_document(fit) for name, fit in calibration.fits.items()
    }  # a second one of a name too
    named = dict.fromkeys(
        [calibration.headline_recipe, *calibration.recipes]
    )  # it may have no points
    by_recipe |= {recipe: _fit_document(calibration.fit_for(recipe)) for recipe in named}
    return {
        **by_recipe[calibration.headline_recipe],
        "gpu": calibration.gpu,
        "device_name": calibration.device_name,
        "headline": calibration.headline.model_dump() if calibration.headline else None,
        "reference": calibration.reference.model_dump() if calibration.reference else None,
        "by_recipe": by_recipe,
    }


def _fit_document(fit: Fit) -> dict[str, Any]:
    def errors(e: Any) -> dict[str, float] | None:
        return e.model_dump() if e else None

    return {
        "recipe": fit.recipe,
        "recipes": fit.recipes,
        "rates": fit.rates.model_dump() if fit.rates else None,
        "training": fit.training.model_dump() if fit.training else None,
        "provenance": "fitted",
        "parameters": {name: p.model_dump() for name, p in fit.parameters.items()},
        "leave_one_out": errors(fit.leave_one_out),
        "leave_a_size_out": errors(fit.leave_a_size_out),
        "upward": errors(fit.upward),
        "noise_floor": errors(fit.noise_floor),
        "constant_mfu_baseline": errors(fit.constant_mfu_baseline),
        "leave_one_out_by_stage": {
            s: e.model_dump() for s, e in fit.leave_one_out_by_stage.items()
        },
        "ceilings": fit.ceilings,
        "probed": fit.probed.model_dump(),
        "converged": fit.converged,
        "points": [s.model_dump() for s in fit.stages],
    }


def estimate_document(point: Point, e: Estimate) -> dict[str, Any]:
    """`predict --json`."""

    def quantity(q: Quantity | None) -> dict[str, float] | None:
        return q.as_dict() if q else None

    return {
        "model": point.model.name,
        "workload": point.workload.name,
        "recipe": point.recipe.name,
        "gpu": e.gpu,
        "step_s": quantity(e.step_s),
        "video_s": quantity(e.video_s),
        "stages": {name: quantity(q) for name, q in e.stages.items()},
        "step_s_by_class": e.step_s_by_class,
        "minutes_per_gpu_hour": quantity(e.minutes_per_gpu_hour),
        "usd_per_minute": quantity(e.usd_per_minute),
        "kwh_per_minute": quantity(e.kwh_per_minute),
        "fits_memory": e.fits_memory,
        "provenance": e.provenance,
        "warnings": e.warnings,
        "heldout_error": e.heldout_error,
    }


def ceilings_document(record: CeilingsRecord) -> dict[str, Any]:
    """`ceilings --json`."""

    def probes(kind: str) -> list[dict[str, Any]]:
        return [
            {
                **p.shape,
                "dtype": p.dtype,
                **({"backend": p.backend, "backend_ran": p.backend_ran} if p.backend else {}),
                "flops_per_s" if p.flops is not None else "bytes_per_s": p.rate,
                "median_s": p.timing.median_s,
                "low_s": p.timing.low_s,
                "high_s": p.timing.high_s,
                "n": p.timing.n,
                "stop": p.timing.stop,
            }
            for p in record.probes
            if p.kind == kind
        ]

    gemm = record.best("gemm")
    return {
        "device": record.environment.device_name,
        "gpu": record.environment.gpu,
        "provenance": "measured",
        "gemm": probes("gemm"),
        "attention": probes("attention"),
        "conv3d": probes("conv3d"),
        "conv3d_benchmark": probes("conv3d_benchmark"),
        "small_conv3d": probes("small_conv3d"),
        "copy": {"bytes_per_s": record.peak("copy"), "sizes": probes("copy")},
        "triad": {"bytes_per_s": record.peak("triad"), "sizes": probes("triad")},
        "activation": {"bytes_per_s": record.peak("activation"), "sizes": probes("activation")},
        "fresh_write": {"bytes_per_s": record.peak("fresh_write"), "sizes": probes("fresh_write")},
        "read": {"bytes_per_s": record.peak("read"), "sizes": probes("read")},
        "write": {"bytes_per_s": record.peak("write"), "sizes": probes("write")},
        "peak": {
            "gemm_flops_per_s": record.peak("gemm"),
            "attention_flops_per_s": record.peak("attention"),
            "conv_flops_per_s": record.peak("conv3d"),
            "copy_bytes_per_s": record.peak("copy"),
            "gemm_shape": {**gemm.shape, "dtype": gemm.dtype} if gemm else None,
        },
        "left_out": record.reason,
        "environment": record.environment.model_dump(),
    }
