"""An estimate of any point from a calibration, on its own card or carried to another."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.calibrate.calibration import (
    Calibration,
    Fit,
    fit_is_of,
)
from bench.calibrate.fit_pool import ceilings_for
from bench.calibrate.predict import Estimate, predict
from bench.calibrate.transfer import check_same_kind, transfer
from bench.core.errors import UserError, nearest
from bench.core.load import datasheet, load, names
from bench.core.specs.gpu import Gpu
from bench.core.specs.point import Point
from bench.count.cache import counted
from bench.results.store import (
    ceilings_record,
    read_records,
)


def estimate(
    point: Point,
    calibration: Calibration,
    *,
    gpu: str | None = None,
    ceilings: Path | None = None,
    count: Any = None,
) -> Estimate:
    """Count the point (imports torch where it was not counted before) and predict it by its
    recipe's fit.  Raises UserError.

    gpu: carry the calibration to this card, on its datasheet or on the ceilings measured in another
    result. count: the point's bench.count.point.ModelCount, where the caller has it already."""
    if point.recipe.on_several_ranks:
        raise UserError(
            f"recipe {point.recipe.name} runs on several ranks; one device is predicted"
        )
    fitted, carried = calibration.fit_for(point.recipe, point.model), []
    if not fit_is_of(fitted, point.model):
        carried.append(
            f"extrapolated: fitted on {fitted.rates.models} models, and on a CPU {point.model.name}"
            " runs other kernels than those"
        )
    if (gpu is not None and gpu != calibration.gpu) or ceilings is not None:
        calibration, fitted, words = carry(calibration, fitted, gpu, ceilings)
        carried.append(f"extrapolated: carried over to {calibration.gpu}, on {words}")
    count = count or counted(point)
    predicted = predict(
        point, count.stages, count.params, calibration, fitted, datasheet(calibration.gpu)
    )
    return (
        replace(predicted, provenance="extrapolated", warnings=carried + predicted.warnings)
        if carried
        else predicted
    )


def carry(
    calibration: Calibration, fitted: Fit, gpu: str | None, ceilings: Path | None
) -> tuple[Calibration, Fit, str]:
    """bench.calibrate.transfer by names: the card's, or that of the result whose ceilings are
    taken.  Raises UserError, also between a CPU and a GPU."""
    measured = None
    if ceilings is not None:
        record = ceilings_record(read_records(ceilings))
        if record is None:
            raise UserError(
                f"--ceilings {ceilings}: no ceilings were measured in it; `ldt-bench run` of a"
                " suite with `ceilings: true` does"
            )
        if gpu not in (None, record.environment.gpu):
            raise UserError(
                f"--ceilings {ceilings}: measured on {record.environment.gpu}, not on {gpu}"
            )
        gpu = record.environment.gpu
        check_same_kind(calibration, gpu)
        measured = ceilings_for(
            record, fitted.dtype, fitted.attention, fitted.rates.attention if fitted.rates else None
        )
    if gpu not in names("gpus"):
        raise UserError(
            f"--gpu {gpu!r} is not one of {', '.join(names('gpus'))}{nearest(gpu, names('gpus'))}"
        )
    return transfer(calibration, fitted, load(Gpu, gpu), datasheet(calibration.gpu), measured)
