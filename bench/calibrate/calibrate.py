"""From a result's records to its calibration: a fit per recipe, the headline, and the reference point of the chain."""

import warnings
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, get_args

import numpy as np

from bench.calibrate.calibration import (
    Calibration,
    Ceiling,
    Fit,
    FittedStage,
    Headline,
    Interval,
    Parameter,
    ProbedSizes,
    Range,
    Reference,
    read_calibration,
)
from bench.calibrate.cost_model import INTERVAL, PARAMETERS, RATES, Ceilings, Work
from bench.calibrate.count_cache import counted
from bench.calibrate.fit import (
    FitResult,
    Observation,
    TooFewPoints,
    bootstrap,
    constant_mfu_leave_one_out,
    error_summary,
    fit,
    identified,
    leave_a_size_out,
    leave_one_out,
    upward,
)
from bench.calibrate.predict import (
    Estimate,
    Quantity,
    dimensions,
    minutes_per_gpu_hour,
    predict,
    stage_calls_per_video,
)
from bench.calibrate.transfer import transfer
from bench.calibrate.waterfall import MODEL, WORKLOAD
from bench.core.errors import UserError, nearest
from bench.core.load import load, load_point, names, suite_points
from bench.core.records import FINISHED, CeilingsRecord, PointRecord, cards_in
from bench.core.spec import TOKEN_STAGES, Gpu, Point, Suite
from bench.core.store import (
    CALIBRATION,
    ceilings_record,
    disk_faults,
    point_records,
    read_records,
    read_suite,
    write_whole,
)

T = TypeVar("T")
MEASURED = ("ok", "unstable")      # the robust fit bears a noisy point better than the loss of one


def calibrate(directory: Path) -> Calibration:
    """Fit every recipe of a result and write calibration.json.

    Raises UserError where records are missing, of several devices, or too few, naming what would supply them."""
    records = read_records(directory)
    devices = {(r.environment.gpu, r.environment.device_name) for r in records}
    if len(devices) > 1:
        raise UserError(f"{directory}: records of several devices: {', '.join(sorted(name for _, name in devices))}; "
                        "calibrate one at a time")
    if cards := cards_in(r.environment for r in records):
        warnings.warn(f"{directory}: measured on {cards}; an efficiency is of the ceilings of the card that they were "
                      "measured on", stacklevel=2)
    (gpu, device_name), suite = devices.pop(), read_suite(directory)
    ceilings = ceilings_record(records)
    if ceilings is None:
        raise UserError(f"{directory}: {_why_no_ceilings(records)}")
    with disk_faults(directory):
        (directory / CALIBRATION).unlink(missing_ok=True)        # where this one fails, an older one would be a lie
    by_recipe: dict[str, list[PointRecord]] = defaultdict(list)
    for record in point_records(records):
        if record.outcome in MEASURED:
            by_recipe[record.recipe].append(record)
    if not by_recipe:
        raise UserError(f"{directory}: no point was measured with outcome ok; `ldt-bench report {directory}` says why")
    fits: dict[str, Fit] = {}
    too_few: dict[str, str] = {}
    for recipe, measured in by_recipe.items():
        try:
            fits[recipe] = _fit_recipe(recipe, measured, ceilings)
        except TooFewPoints as error:
            too_few[recipe] = str(error)
    if suite.headline.recipe not in fits:
        why = too_few.get(suite.headline.recipe, "none of its points was measured")
        raise UserError(f"{directory}: recipe {suite.headline.recipe}: {why}; {_what_would_help(suite, records, directory)}")
    power = stage_power(point_records(records))
    calibration = Calibration(
        gpu=gpu, device_name=device_name, suite=suite.name, headline_recipe=suite.headline.recipe, fits=fits,
        power_w=power.get("denoise_step"), stage_power_w=power, sentinel_s=sentinel(point_records(records)),
        headline=None, headline_missing=None, reference=None, reference_missing=None,
    )
    headline, headline_missing = _or_reason(lambda: _headline(suite, point_records(records), calibration))
    reference, reference_missing = _or_reason(lambda: _reference(calibration))
    calibration = calibration.model_copy(update={
        "headline": headline, "headline_missing": headline_missing,
        "reference": reference, "reference_missing": reference_missing,
    })
    with disk_faults(directory):
        write_whole(directory / CALIBRATION, calibration.model_dump_json(indent=1))
    return calibration


def _why_no_ceilings(records: list[PointRecord | CeilingsRecord]) -> str:
    tried = [r for r in records if isinstance(r, CeilingsRecord)]
    if not tried:
        return "no ceilings were measured; run a suite with `ceilings: true`, as smoke has"
    return f"the ceilings ended in {tried[-1].outcome}: {tried[-1].reason}; without them nothing is calibrated"


def _what_would_help(suite: Suite, records: list[PointRecord | CeilingsRecord], directory: Path) -> str:
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
    """A result's calibration; made from its records where it is not there yet.  Raises UserError."""
    if directory.is_dir() and not (directory / CALIBRATION).is_file():
        return calibrate(directory)
    return read_calibration(directory)


def estimate(point: Point, calibration: Calibration, *, gpu: str | None = None, ceilings: Path | None = None,
             count: Any = None) -> Estimate:
    """Count the point (imports torch where it was not counted before) and predict it by its recipe's fit.  Raises UserError.

    gpu: carry the calibration to this card, on its datasheet or on the ceilings measured in another result.
    count: the point's bench.count.count.ModelCount, where the caller has it already."""
    fitted, carried = calibration.fit_for(point.recipe.name), []
    if (gpu is not None and gpu != calibration.gpu) or ceilings is not None:
        calibration, fitted, words = carry(calibration, fitted, gpu, ceilings)
        carried = [f"extrapolated: carried over to {calibration.gpu}, on {words}"]
    count = count or counted(point)
    predicted = predict(point, count.stages, count.params, calibration, fitted, datasheet(calibration.gpu))
    return replace(predicted, provenance="extrapolated", warnings=carried + predicted.warnings) if carried else predicted


def carry(calibration: Calibration, fitted: Fit, gpu: str | None, ceilings: Path | None) -> tuple[Calibration, Fit, str]:
    """bench.calibrate.transfer by names: the card's, or that of the result whose ceilings are taken.  Raises UserError."""
    measured = None
    if ceilings is not None:
        record = ceilings_record(read_records(ceilings))
        if record is None:
            raise UserError(f"--ceilings {ceilings}: no ceilings were measured in it; `ldt-bench run` of a suite with "
                            "`ceilings: true` does")
        if gpu not in (None, record.environment.gpu):
            raise UserError(f"--ceilings {ceilings}: measured on {record.environment.gpu}, not on {gpu}")
        measured, gpu = ceilings_for(record, fitted.dtype, fitted.attention), record.environment.gpu
    if gpu not in names("gpus"):
        raise UserError(f"--gpu {gpu!r} is not one of {', '.join(names('gpus'))}{nearest(gpu, names('gpus'))}")
    return transfer(calibration, fitted, load(Gpu, gpu), datasheet(calibration.gpu), measured)


def datasheet(gpu: str) -> Gpu | None:
    """The card's datasheet; None where none is known."""
    return load(Gpu, gpu) if gpu in names("gpus") else None


def _headline(suite: Suite, records: list[PointRecord], calibration: Calibration) -> Headline:
    """Measured where every stage of the headline point was timed, else predicted.  Raises UserError."""
    measured = measured_headline(suite, records)
    if measured is not None:
        return measured
    point = load_point(suite.headline.model, suite.headline.workload, suite.headline.recipe)
    predicted = estimate(point, calibration)
    return Headline(model=point.model.name, workload=point.workload.name, recipe=point.recipe.name, gpu=calibration.gpu,
                    minutes_per_gpu_hour=_interval(predicted.minutes_per_gpu_hour), video_s=_interval(predicted.video_s),
                    provenance=predicted.provenance, warnings=predicted.warnings)


def headline_of(directory: Path, calibration: Calibration | None) -> tuple[Headline | None, str | None]:
    """A result's headline, and why there is none.  A measured one stands without a calibration.  Raises UserError."""
    if calibration is not None:
        return calibration.headline, calibration.headline_missing
    headline = measured_headline(read_suite(directory), point_records(read_records(directory)))
    return headline, None if headline else "not calibrated, and its point was not measured whole"


def measured_headline(suite: Suite, records: list[PointRecord]) -> Headline | None:
    """The headline where every stage of its point was timed: no fit is needed for it.  Else None.

    The point is known by what it is, not by its name: a user's own YAML may be called like a preset."""
    point = load_point(suite.headline.model, suite.headline.workload, suite.headline.recipe)
    for record in records:
        if record.outcome not in MEASURED or Point.model_validate(record.point).subject != point.subject:
            continue
        calls = stage_calls_per_video(point.workload, record.counts)
        if set(calls) <= set(record.timings):
            timings = {stage: record.timings[stage] for stage in calls}
            value, low, high = (sum(n * getattr(timings[stage], end) for stage, n in calls.items())
                                for end in ("median_s", "low_s", "high_s"))
            return Headline(
                model=point.model.name, workload=point.workload.name, recipe=point.recipe.name,
                gpu=record.environment.gpu, video_s=Interval(value=value, low=low, high=high), provenance="measured",
                warnings=[record.reason] if record.outcome == "unstable" and record.reason else [],
                minutes_per_gpu_hour=Interval(value=minutes_per_gpu_hour(point.workload, value),
                                              low=minutes_per_gpu_hour(point.workload, high),
                                              high=minutes_per_gpu_hour(point.workload, low)))
    return None


def _reference(calibration: Calibration) -> Reference:
    """Raises UserError where the fit lacks a class of work that the reference point needs."""
    point = load_point(MODEL, WORKLOAD, calibration.headline_recipe)
    predicted = estimate(point, calibration)
    stages = {name: q.value for name, q in predicted.stages.items()}
    guided = 2 * stages["denoise"] + stages["vae_decode"] + 2 * stages["text_encode"]
    return Reference(
        gpu=calibration.gpu,
        gemm_ceiling_flops_per_s=calibration.fit_for(None).ceilings["gemm_flops_per_s"],
        denoise_minutes=minutes_per_gpu_hour(point.workload, stages["denoise"]),
        minutes=_interval(predicted.minutes_per_gpu_hour),
        guided_minutes=minutes_per_gpu_hour(point.workload, guided),
        provenance=predicted.provenance, warnings=predicted.warnings,
    )


def _or_reason(make: Callable[[], T]) -> tuple[T | None, str | None]:
    try:
        return make(), None
    except UserError as error:
        return None, str(error)


def _interval(q: Quantity) -> Interval:
    return Interval(value=q.value, low=q.low, high=q.high)


def ceilings_for(record: CeilingsRecord, dtype: str, attention: str) -> Ceilings:
    """Measured ceilings for a recipe.  Raises UserError naming the missing one."""
    best = {"gemm": record.best("gemm", dtype), "attention": record.best("attention", dtype, attention),
            "conv": record.best("conv3d", dtype), "copy": record.best("copy")}
    missing = [f"{name}_{'bytes' if name == 'copy' else 'flops'}_per_s" for name, probe in best.items() if probe is None]
    if missing:
        raise UserError(f"no ceiling measured for {', '.join(missing)} in {dtype}, attention {attention}")
    gemm, attended, conv = (best[name].shape for name in ("gemm", "attention", "conv"))
    ladder = sorted((float(p.bytes_moved), p.rate) for p in record.probes if p.kind == "copy" and p.dtype == "fp32")
    return Ceilings(
        gemm_flops_per_s=best["gemm"].rate, attention_flops_per_s=best["attention"].rate,
        conv_flops_per_s=best["conv"].rate, copy_bytes_per_s=best["copy"].rate,
        gemm_size=(gemm["m"], gemm["n"], gemm["k"]),
        attention_size=(attended["tokens"], attended["tokens"], attended["head_dim"]),
        conv_size=(conv["frames"] * conv["height"] * conv["width"], conv["channels"], 27 * conv["channels"]),
        small_conv_flops_per_s=record.peak("small_conv3d", dtype),
        activation_bytes_per_s=record.peak("activation", dtype),
        fresh_bytes_per_s=record.peak("fresh_write") if record.environment.device == "cpu" else None,
        ladder=tuple(ladder),
    )


def observations_of(records: list[PointRecord]) -> list[Observation]:
    """Every timed stage.  Raises TooFewPoints where all denoise steps are of one size: no term of size shows then."""
    observations = [
        Observation(record.label, stage, Work.of(record.counts[stage]), timing.median_s, record.counts[stage].flops,
                    noise=timing.relative_half_width, tokens=record.tokens)
        # A token's products of one row are bound by the bytes of the weights, and would pull the half-sizes of the others.
        for record in records for stage, timing in record.timings.items() if stage not in TOKEN_STAGES]
    sizes = {(o.tokens, o.flops) for o in observations if o.stage == "denoise_step"}
    steps = sum(o.stage == "denoise_step" for o in observations)
    if len(sizes) == 1 and steps > 1:
        raise TooFewPoints(f"all {steps} denoise steps are of one size ({sizes.pop()[0]} tokens)")
    return observations


def _fit_recipe(recipe: str, records: list[PointRecord], ceilings: CeilingsRecord) -> Fit:
    settings = records[0].point["recipe"]
    rates = ceilings_for(ceilings, settings["dtype"], settings["attention"])
    observations = observations_of(records)
    subjects = {record.label: _subject(record) for record in records}
    energies = {(record.label, stage): _energy_j(record, stage) for record in records for stage in record.timings}
    fitted = fit(observations, rates)
    draws = bootstrap(observations, fitted)
    held_out = leave_one_out(observations, rates)
    by_stage: dict[str, list[float]] = defaultdict(list)
    for index, error in held_out.items():
        by_stage[observations[index].stage].append(error)
    steps = [o for o in observations if o.stage == "denoise_step"]
    return Fit(
        recipe=recipe, dtype=settings["dtype"], attention=settings["attention"],
        ceilings={name: getattr(rates, name) for name in get_args(Ceiling)},
        probed=ProbedSizes(**{name: getattr(rates, name) for name in ProbedSizes.model_fields}),
        parameters=_parameters(fitted, draws), draws=draws.tolist(), residuals=by_stage["denoise_step"],
        leave_one_out=error_summary(by_stage["denoise_step"]),
        leave_one_out_by_stage={s: e for s, es in by_stage.items() if (e := error_summary(es)) is not None},
        upward=error_summary(upward(observations, rates)),
        leave_a_size_out=error_summary(leave_a_size_out(observations, rates).values()),
        noise_floor=error_summary([-np.log1p(o.noise) for o in steps]),
        constant_mfu_baseline=error_summary(constant_mfu_leave_one_out(observations)),
        constant_mfu_flops_per_s=float(np.exp(np.mean([np.log(o.flops / o.seconds) for o in steps]))) if steps else None,
        converged=fitted.converged, ranges=_ranges(records),
        stages=[
            FittedStage(point=o.point, stage=o.stage, tokens=o.tokens, flops=o.flops, measured_s=o.seconds,
                        fitted_s=float(o.seconds * np.exp(-fitted.residuals[i])),
                        held_out_s=float(o.seconds * np.exp(-held_out[i])) if i in held_out else None,
                        subject=subjects[o.point], energy_j=energies[o.point, o.stage])
            for i, o in enumerate(observations)
        ],
    )


def _parameters(fitted: FitResult, draws: np.ndarray) -> dict[str, Parameter]:
    low, high = np.percentile(draws, INTERVAL, axis=0)
    told = identified(draws)
    out = {}
    for i, (name, meaning) in enumerate(PARAMETERS.items()):
        value = float(fitted.theta[i])
        if not fitted.observed[i] and name in RATES:
            out[name] = Parameter(value=None, low=None, high=None, unit=meaning.unit, at_bound=False, identified=False)
        else:
            out[name] = Parameter(value=value, low=min(float(low[i]), value), high=max(float(high[i]), value),
                                  unit=meaning.unit, at_bound=fitted.at_bound(name) and bool(fitted.observed[i]),
                                  identified=bool(told[i] and fitted.observed[i]))
    return out


def sentinel(records: list[PointRecord]) -> float | None:
    """Median seconds of the sentinel product around these records; None where none was timed."""
    readings = [s for r in records if r.sentinel for s in (r.sentinel.before_s, r.sentinel.after_s)]
    return float(np.median(readings)) if readings else None


def stage_power(records: list[PointRecord]) -> dict[str, float]:
    """Watts by stage, the mean of its points: energy over the time it took where the counter was read, else the median
    of the power readings."""
    by_stage: dict[str, list[float]] = defaultdict(list)
    for record in records:
        for stage, t in (record.telemetry or {}).items():
            if t.energy is not None:
                by_stage[stage].append(t.energy.power_w)
            elif t.power_w is not None and t.power_w.median > 0:
                by_stage[stage].append(t.power_w.median)
    return {stage: sum(watts) / len(watts) for stage, watts in by_stage.items()}


def _energy_j(record: PointRecord, stage: str) -> float | None:
    read = (record.telemetry or {}).get(stage)
    return read.energy.energy_j if read is not None and read.energy is not None else None


def _subject(record: PointRecord) -> str | None:
    """None for a record of which no point can be made any more."""
    try:
        return Point.model_validate(record.point).subject
    except ValueError:
        return None


def _ranges(records: list[PointRecord]) -> dict[str, Range]:
    values: dict[str, list[float]] = defaultdict(list)
    for record in records:
        for name, value in dimensions(record.tokens, {s: record.counts[s] for s in record.timings}).items():
            values[name].append(value)
    return {name: Range(low=min(v), high=max(v)) for name, v in values.items()}
