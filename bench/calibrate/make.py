"""From a result's records to its calibration: a fit for the recipes of the same rates, the
headline, and the reference point of the chain."""

import warnings
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from bench.calibrate.calibration import (
    Calibration,
    Fit,
    Headline,
    Interval,
    Reference,
    fit_is_of,
    fit_serving,
    read_calibration,
)
from bench.calibrate.fit import TooFewPoints
from bench.calibrate.fit_pool import ceilings_for, fit_pool
from bench.calibrate.pools import Pool, pools
from bench.calibrate.predict import (
    Estimate,
    Quantity,
    minutes_per_gpu_hour,
    predict,
    stage_calls_per_video,
)
from bench.calibrate.transfer import check_same_kind, transfer
from bench.core.errors import UserError, nearest
from bench.core.load import load, load_point, names, suite_points
from bench.core.specs.gpu import Gpu
from bench.core.specs.point import Point
from bench.core.specs.suite import Suite
from bench.count.cache import counted
from bench.results.environment import cards_in
from bench.results.records import FINISHED, CeilingsRecord, PointRecord
from bench.results.store import (
    CALIBRATION,
    ceilings_record,
    disk_faults,
    point_records,
    read_records,
    read_suite,
    write_whole,
)
from bench.studies.pencil.waterfall import MODEL, WORKLOAD

T = TypeVar("T")
MEASURED = ("ok", "unstable")  # the robust fit bears a noisy point better than the loss of one


def calibrate(directory: Path) -> Calibration:
    """Fit a result's records, those of the same rates together (bench.calibrate.pools), and write
    calibration.json.

    Raises UserError where records are missing, of several devices, or too few, naming what would
    supply them."""
    records = read_records(directory)
    devices = {(r.environment.gpu, r.environment.device_name) for r in records}
    if len(devices) > 1:
        raise UserError(
            f"{directory}: records of several devices:"
            f" {', '.join(sorted(name for _, name in devices))}; calibrate one at a time"
        )
    if cards := cards_in(r.environment for r in records):
        warnings.warn(
            f"{directory}: measured on {cards}; an efficiency is of the ceilings of the card that"
            " they were measured on",
            stacklevel=2,
        )
    (gpu, device_name), suite = devices.pop(), read_suite(directory)
    ceilings = ceilings_record(records)
    if ceilings is None:
        raise UserError(f"{directory}: {_why_no_ceilings(records)}")
    with disk_faults(directory):
        (directory / CALIBRATION).unlink(
            missing_ok=True
        )  # where this one fails, an older one would be a lie
    measured = [record for record in point_records(records) if record.outcome in MEASURED]
    if not measured:
        raise UserError(
            f"{directory}: no point was measured with outcome ok; `ldt-bench report {directory}`"
            " says why"
        )
    fits, unfitted = _fit_pools(pools(measured), ceilings)
    if fit_serving(fits, suite.headline.recipe) is None:
        why = unfitted.get(suite.headline.recipe, "none of its points was measured")
        raise UserError(
            f"{directory}: recipe {suite.headline.recipe}: {why};"
            f" {_what_would_help(suite, records, directory)}"
        )
    power = stage_power(point_records(records))
    calibration = Calibration(
        gpu=gpu,
        device_name=device_name,
        suite=suite.name,
        headline_recipe=suite.headline.recipe,
        fits=fits,
        power_w=power.get("denoise_step"),
        stage_power_w=power,
        sentinel_s=sentinel(point_records(records)),
        headline=None,
        headline_missing=None,
        reference=None,
        reference_missing=None,
    )
    headline, headline_missing = _or_reason(
        lambda: _headline(suite, point_records(records), calibration)
    )
    reference, reference_missing = _or_reason(lambda: _reference(calibration))
    calibration = calibration.model_copy(
        update={
            "headline": headline,
            "headline_missing": headline_missing,
            "reference": reference,
            "reference_missing": reference_missing,
        }
    )
    with disk_faults(directory):
        write_whole(directory / CALIBRATION, calibration.model_dump_json(indent=1))
    return calibration


def _fit_pools(
    pooled: list[Pool], ceilings: CeilingsRecord
) -> tuple[dict[str, Fit], dict[str, str]]:
    """-> fits, each under its first recipe's name (which a second one of that name has with what
    tells it apart), and for each recipe of a pool that cannot be fitted the reason."""
    fits: dict[str, Fit] = {}
    unfitted: dict[str, str] = {}
    for pool in pooled:
        try:
            made = fit_pool(pool, ceilings)
        except (TooFewPoints, UserError) as error:
            unfitted |= dict.fromkeys(pool.recipes, str(error))
            continue
        name = made.recipe
        if name in fits:
            name += f" ({', '.join(filter(None, (pool.key.models, pool.key.attention)))})"
        fits[name] = made
    return fits, unfitted


def _why_no_ceilings(records: list[PointRecord | CeilingsRecord]) -> str:
    tried = [r for r in records if isinstance(r, CeilingsRecord)]
    if not tried:
        return "no ceilings were measured; run a suite with `ceilings: true`, as smoke has"
    return (
        f"the ceilings ended in {tried[-1].outcome}: {tried[-1].reason}; without them nothing is"
        " calibrated"
    )


def _what_would_help(
    suite: Suite, records: list[PointRecord | CeilingsRecord], directory: Path
) -> str:
    """Resuming, where it would measure something; else more points."""
    measured = {r.fingerprint for r in records if r.outcome in FINISHED}
    try:
        missing = any(point.fingerprint not in measured for point in suite_points(suite))
    except UserError as error:
        return f"its suite cannot be loaded any more ({error})"
    if missing:
        return f"`ldt-bench run --resume {directory}` measures what is missing"
    return "every point of the suite was tried: add points of more sizes or stages to it"


def load_or_calibrate(directory: Path) -> Calibration:
    """A result's calibration; made from its records where it is not there yet.  Raises
    UserError."""
    if directory.is_dir() and not (directory / CALIBRATION).is_file():
        return calibrate(directory)
    return read_calibration(directory)


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


def datasheet(gpu: str) -> Gpu | None:
    """The card's datasheet; None where none is known."""
    return load(Gpu, gpu) if gpu in names("gpus") else None


def _headline(suite: Suite, records: list[PointRecord], calibration: Calibration) -> Headline:
    """Measured where every stage of the headline point was timed, else predicted.  Raises
    UserError."""
    measured = measured_headline(suite, records)
    if measured is not None:
        return measured
    point = load_point(suite.headline.model, suite.headline.workload, suite.headline.recipe)
    predicted = estimate(point, calibration)
    return Headline(
        model=point.model.name,
        workload=point.workload.name,
        recipe=point.recipe.name,
        gpu=calibration.gpu,
        minutes_per_gpu_hour=_interval(predicted.minutes_per_gpu_hour),
        video_s=_interval(predicted.video_s),
        provenance=predicted.provenance,
        warnings=predicted.warnings,
    )


def headline_of(
    directory: Path, calibration: Calibration | None
) -> tuple[Headline | None, str | None]:
    """A result's headline, and why there is none.  A measured one stands without a calibration.
    Raises UserError."""
    if calibration is not None:
        return calibration.headline, calibration.headline_missing
    headline = measured_headline(read_suite(directory), point_records(read_records(directory)))
    return headline, None if headline else "not calibrated, and its point was not measured whole"


def measured_headline(suite: Suite, records: list[PointRecord]) -> Headline | None:
    """The headline where every stage of its point was timed, in one record or in several: no fit is
    needed for it.  Else None.

    The point is known by what it is, not by its name: a user's own YAML may be called like a
    preset."""
    point = load_point(suite.headline.model, suite.headline.workload, suite.headline.recipe)
    own = [
        r
        for r in records
        if r.outcome in MEASURED and Point.model_validate(r.point).subject == point.subject
    ]
    if not own:
        return None
    timings = {stage: timing for record in own for stage, timing in record.timings.items()}
    calls = stage_calls_per_video(point.workload, own[0].counts)
    if not set(calls) <= set(timings):
        return None
    value, low, high = (
        sum(n * getattr(timings[stage], end) for stage, n in calls.items())
        for end in ("median_s", "low_s", "high_s")
    )
    return Headline(
        model=point.model.name,
        workload=point.workload.name,
        recipe=point.recipe.name,
        gpu=own[0].environment.gpu,
        video_s=Interval(value=value, low=low, high=high),
        provenance="measured",
        warnings=[r.reason for r in own if r.outcome == "unstable" and r.reason],
        minutes_per_gpu_hour=Interval(
            value=minutes_per_gpu_hour(point.workload, value),
            low=minutes_per_gpu_hour(point.workload, high),
            high=minutes_per_gpu_hour(point.workload, low),
        ),
    )


def _reference(calibration: Calibration) -> Reference:
    """Raises UserError where the fit lacks a class of work that the reference point needs."""
    point = load_point(MODEL, WORKLOAD, calibration.default_recipe)
    predicted = estimate(point, calibration)
    stages = {name: q.value for name, q in predicted.stages.items()}
    guided = 2 * stages["denoise"] + stages["vae_decode"] + 2 * stages["text_encode"]
    return Reference(
        gpu=calibration.gpu,
        gemm_ceiling_flops_per_s=calibration.fit_for(point.recipe, point.model).ceilings[
            "gemm_flops_per_s"
        ],
        denoise_minutes=minutes_per_gpu_hour(point.workload, stages["denoise"]),
        minutes=_interval(predicted.minutes_per_gpu_hour),
        guided_minutes=minutes_per_gpu_hour(point.workload, guided),
        provenance=predicted.provenance,
        warnings=predicted.warnings,
    )


def _or_reason(make: Callable[[], T]) -> tuple[T | None, str | None]:
    try:
        return make(), None
    except UserError as error:
        return None, str(error)


def _interval(q: Quantity) -> Interval:
    return Interval(value=q.value, low=q.low, high=q.high)


def sentinel(records: list[PointRecord]) -> float | None:
    """Median seconds of the sentinel product around these records; None where none was timed."""
    readings = [s for r in records if r.sentinel for s in (r.sentinel.before_s, r.sentinel.after_s)]
    return float(np.median(readings)) if readings else None


def stage_power(records: list[PointRecord]) -> dict[str, float]:
    """Watts by stage, the mean of its points: energy over the time it took where the counter was
    read, else the median of the power readings."""
    by_stage: dict[str, list[float]] = defaultdict(list)
    for record in records:
        for stage, t in (record.telemetry or {}).items():
            if t.energy is not None:
                by_stage[stage].append(t.energy.power_w)
            elif t.power_w is not None and t.power_w.median > 0:
                by_stage[stage].append(t.power_w.median)
    return {stage: sum(watts) / len(watts) for stage, watts in by_stage.items()}
