"""Predictions held against points that were measured afterwards: what a calibration is worth.

Each stage of each measured point is predicted by the recipe's fit, with its 90 % interval, and by
one rate for all FLOPs of its stage (the constant-MFU baseline).  A point that was part of the fit
is left out: it proves nothing.

The machine itself drifts: a fixed product, the sentinel, is timed around every record, and
predictions are for the speed the machine has while the point is measured.  Errors without that
correction stand beside (`raw_error`).
"""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.calibrate.calibration import Calibration, Fit, fit_serving
from bench.calibrate.cost.seconds import seconds_by_class
from bench.calibrate.cost.work import Work
from bench.calibrate.estimate import carry
from bench.calibrate.fitting.accuracy import errors_of
from bench.calibrate.make import sentinel
from bench.calibrate.predict import draw_seconds, quantity
from bench.calibrate.transfer import check_same_kind
from bench.core.errors import UserError
from bench.core.quantity import Quantity, fields_in_json
from bench.core.specs.point import Point
from bench.results.records import CeilingsRecord, PointRecord
from bench.results.store import ceilings_record, on_one_card, point_records, read_records
from bench.results.video import MEASURED


@dataclass(frozen=True)
class HeldOut:
    """One stage of one point: predicted and measured."""

    point: str
    stage: str
    flops: int
    predicted_s: Quantity
    """With its 90 % interval."""
    measured_s: Quantity
    """The median, with its interval."""
    error: float
    """predicted / measured - 1."""
    baseline_error: float | None
    """The same by one rate for all FLOPs of the stage; null where the fit had no such stage."""
    drift: float
    """Sentinel's seconds around this record over those of the calibration, by which predictions are
    multiplied; 1 without."""
    raw_error: float
    """The error had the machine's drift not been taken out."""
    inside: bool
    """The measured median lies in the prediction's interval."""

    def as_dict(self) -> dict[str, object]:
        return fields_in_json(vars(self))


def hold_out(
    calibration: Calibration, directory: Path, *, carried: bool = False
) -> tuple[list[HeldOut], list[str]]:
    """Every stage measured in `directory` that the calibration never saw -> rows, and why others
    were left out.

    carried: the other result is of another card, onto whose ceilings (measured there, else its
    datasheet) the calibration is carried over: what that costs in accuracy.  Raises UserError for
    another device without it, or where nothing is left."""
    rows, left_out = [], []
    records = read_records(directory)
    theirs, ours = _device(records[-1]), (calibration.gpu, calibration.device_name)
    if any(_device(record) != theirs for record in records):
        raise UserError(f"{directory}: records of several devices")
    if theirs != ours:
        check_same_kind(calibration, theirs[0])
    if theirs != ours and not carried:
        raise UserError(
            f"{directory}: measured on {theirs[1]} ({theirs[0]}), and the calibration of {ours[1]}"
            f" ({ours[0]}); --transfer carries it over"
        )
    ceilings = directory if theirs != ours and ceilings_record(records) is not None else None
    moved: dict[int, Fit] = {}
    for record in on_one_card(point_records(records)):
        fit = _fit_for(record, calibration) if record.outcome in MEASURED else None
        if fit is None:
            left_out.append(
                f"{record.label}: "
                + (
                    f"outcome {record.outcome}"
                    if record.outcome not in MEASURED
                    else f"recipe {record.recipe} is not calibrated"
                )
            )
            continue
        if theirs == ours:
            found, out = _held_out(record, fit, _seen(fit), _drift(record, calibration))
        else:
            if id(fit) not in moved:
                moved[id(fit)] = carry(calibration, fit, theirs[0], ceilings)[1]
            found, out = _held_out(record, moved[id(fit)], set(), 1.0)
        rows, left_out = rows + found, left_out + out
    if not rows:
        raise UserError(
            f"{directory}: no point that the calibration never saw"
            f" ({'; '.join(left_out[:2]) or 'no point'}); measure others, e.g. `ldt-bench run"
            " holdout-cpu`"
        )
    return rows, left_out


def _fit_for(record: PointRecord, calibration: Calibration) -> Fit | None:
    point = Point.model_validate(record.point)
    return fit_serving(calibration.fits, point.recipe, point.model)


def _seen(fit: Fit) -> set[tuple[str | None, str]]:
    """(subject, stage) of what it was fitted to."""
    return {
        (s.subject, s.stage)
        for s in (*fit.stages, *(fit.training.stages if fit.training is not None else ()))
    }


def _held_out(
    record: PointRecord, fit: Fit, seen: set[tuple[str | None, str]], drift: float
) -> tuple[list[HeldOut], list[str]]:
    """One record's stages -> rows, and why others were left out."""
    rows, left_out, subject = [], [], Point.model_validate(record.point).subject
    for stage in record.timings:
        if (subject, stage) in seen:
            left_out.append(f"{record.label} {stage}: it was part of the fit")
        elif fit.factor_of(stage) is None:
            left_out.append(f"{record.label} {stage}: the calibration has no training step")
        else:
            try:
                rows.append(_row(record, stage, fit, drift))
            except ValueError as error:
                left_out.append(f"{record.label} {stage}: the calibration has no {error} work")
    return rows, left_out


def _device(record: PointRecord | CeilingsRecord) -> tuple[str, str]:
    return record.environment.gpu, record.environment.device_name


def _drift(record: PointRecord, calibration: Calibration) -> float:
    now = sentinel([record])
    return (
        now / calibration.sentinel_s
        if now is not None and calibration.sentinel_s is not None
        else 1.0
    )


def _row(record: PointRecord, stage: str, fit: Fit, drift: float) -> HeldOut:
    count, timing = record.counts[stage], record.timings[stage]
    work = Work.of(count)
    factor = fit.factor_of(stage)
    inference = sum(
        seconds_by_class(
            work, {name: p.value for name, p in fit.parameters.items()}, fit.device
        ).values()
    )
    drawn = quantity(inference, draw_seconds({stage: work}, fit)[stage])
    predicted = drawn.times(factor).scaled(drift)
    value = inference * factor.value
    rate, median = baseline_rate(fit, stage), timing.median_s
    return HeldOut(
        record.label,
        stage,
        count.flops,
        predicted,
        timing.seconds,
        error=drift * value / median - 1,
        baseline_error=drift * count.flops / rate / median - 1 if rate else None,
        drift=drift,
        raw_error=value / median - 1,
        inside=predicted.low <= median <= predicted.high,
    )


def baseline_rate(fit: Fit, stage: str) -> float | None:
    """FLOP/s of a stage, the geometric mean of its fitted points; None where the fit had none, or
    was carried over."""
    trained = fit.training.stages if fit.training is not None and fit.stages else ()
    rates = [np.log(s.flops / s.measured_s) for s in (*fit.stages, *trained) if s.stage == stage]
    return float(np.exp(np.mean(rates))) if rates else None


def summary(rows: list[HeldOut]) -> dict[str, object]:
    """Errors of the predictions, of the baseline on the same rows, and how many intervals held what
    was measured."""
    with_baseline = [r for r in rows if r.baseline_error is not None]
    return {
        "error": _errors(-np.log1p(r.error) for r in rows),
        "raw_error": _errors(-np.log1p(r.raw_error) for r in rows),
        "drift": float(np.median([r.drift for r in rows])),
        "constant_mfu_baseline": _errors(-np.log1p(r.baseline_error) for r in with_baseline),
        "error_where_baseline": _errors(-np.log1p(r.error) for r in with_baseline),
        "inside_90_percent": sum(r.inside for r in rows) / len(rows),
    }


def _errors(log_errors: Iterable[float]) -> dict[str, float | int] | None:
    found = errors_of(log_errors)
    return found.model_dump() if found is not None else None


def warn_of_order(calibration_dir: Path, directory: Path) -> None:
    """Results are named by their time: a prediction is one only of what was measured after the
    calibration's records."""
    if calibration_dir.resolve().name > directory.resolve().name:
        warnings.warn(
            f"{directory.name} was measured before {calibration_dir.resolve().name}: held out, yet"
            " not predicted",
            stacklevel=2,
        )
