"""From a result's records to its calibration: a fit per recipe, the headline, and the reference point of the chain."""

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from bench.calibrate.calibration import (
    Calibration,
    Fit,
    FittedStage,
    Headline,
    Interval,
    Parameter,
    Range,
    Reference,
    read_calibration,
)
from bench.calibrate.cost_model import INTERVAL, PARAMETERS, UNITS, Ceilings, features
from bench.calibrate.fit import (
    Observation,
    TooFewPoints,
    bootstrap,
    constant_mfu_leave_one_out,
    error_summary,
    fit,
    leave_one_out,
    upward,
)
from bench.calibrate.predict import (
    Estimate,
    Quantity,
    minutes_per_gpu_hour,
    predict,
    stage_calls_per_video,
)
from bench.calibrate.waterfall import MODEL, WORKLOAD
from bench.core.errors import UserError
from bench.core.load import load, load_point, names, suite_points
from bench.core.records import FINISHED, CeilingsRecord, PointRecord
from bench.core.spec import Gpu, Point, Suite
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
        power_w=power.get("denoise_step"), stage_power_w=power,
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


def estimate(point: Point, calibration: Calibration) -> Estimate:
    """Count the point (imports torch) and predict it by its recipe's fit.  Raises UserError."""
    from bench.count.count import count_point

    fitted = calibration.fit_for(point.recipe.name)
    count = count_point(point)
    return predict(point, count.stages, count.params, calibration, fitted, datasheet(calibration.gpu))


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
    rates = {
        "gemm_flops_per_s": record.peak("gemm", dtype),
        "attention_flops_per_s": record.peak("attention", dtype, attention),
        "conv_flops_per_s": record.peak("conv3d", dtype),
        "copy_bytes_per_s": record.peak("copy"),
    }
    missing = [name for name, rate in rates.items() if rate is None]
    if missing:
        raise UserError(f"no ceiling measured for {', '.join(missing)} in {dtype}, attention {attention}")
    return Ceilings(**rates)  # type: ignore[arg-type]


def _fit_recipe(recipe: str, records: list[PointRecord], ceilings: CeilingsRecord) -> Fit:
    settings = records[0].point["recipe"]
    rates = ceilings_for(ceilings, settings["dtype"], settings["attention"])
    observations, tokens, subjects, energies = [], [], [], []
    for record in records:
        for stage, timing in record.timings.items():
            count = record.counts[stage]
            observations.append(Observation(record.label, stage, features(count, rates), timing.median_s, count.flops))
            tokens.append(record.tokens)
            subjects.append(_subject(record))
            energies.append(_energy_j(record, stage))
    fitted = fit(observations)
    draws = bootstrap(observations, fitted)
    held_out = leave_one_out(observations)
    by_stage: dict[str, list[float]] = defaultdict(list)
    for index, error in held_out.items():
        by_stage[observations[index].stage].append(error)
    steps = [o for o in observations if o.stage == "denoise_step"]
    low, high = np.percentile(draws, INTERVAL, axis=0)
    parameters = {
        name: Parameter(value=float(fitted.theta[i]), low=min(float(low[i]), float(fitted.theta[i])),
                        high=max(float(high[i]), float(fitted.theta[i])), unit=UNITS[name],
                        at_bound=fitted.at_bound(i))
        if fitted.observed[i] else Parameter(value=None, low=None, high=None, unit=UNITS[name], at_bound=False)
        for i, name in enumerate(PARAMETERS)
    }
    return Fit(
        recipe=recipe, dtype=settings["dtype"], attention=settings["attention"], ceilings=vars(rates),
        parameters=parameters, draws=draws.tolist(), residuals=by_stage["denoise_step"],
        leave_one_out=error_summary(by_stage["denoise_step"]),
        leave_one_out_by_stage={s: e for s, es in by_stage.items() if (e := error_summary(es)) is not None},
        upward=error_summary(upward(observations)),
        constant_mfu_baseline=error_summary(constant_mfu_leave_one_out(observations)),
        constant_mfu_flops_per_s=float(np.exp(np.mean([np.log(o.flops / o.seconds) for o in steps]))) if steps else None,
        converged=fitted.converged, ranges=_ranges(records),
        stages=[
            FittedStage(point=o.point, stage=o.stage, tokens=tokens[i], flops=o.flops, measured_s=o.seconds,
                        fitted_s=float(o.seconds * np.exp(-fitted.residuals[i])),
                        held_out_s=float(o.seconds * np.exp(-held_out[i])) if i in held_out else None,
                        subject=subjects[i], energy_j=energies[i])
            for i, o in enumerate(observations)
        ],
    )


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
    steps = [r for r in records if "denoise_step" in r.timings]
    spans = {
        "tokens": [float(r.tokens) for r in steps],
        "step_flops": [float(r.counts["denoise_step"].flops) for r in steps],
        "attention_share": [attention_share(r) for r in steps],
    }
    return {name: Range(low=min(values), high=max(values)) for name, values in spans.items() if values}


def attention_share(record: PointRecord) -> float:
    count = record.counts["denoise_step"]
    return count.attention_flops / count.flops
