"""One fit of the records that share their rates (bench.calibrate.pools): ceilings, observations,
parameters, errors."""

from collections import defaultdict
from statistics import NormalDist
from typing import get_args

import numpy as np

from bench.calibrate.calibration import (
    TRAINING_STAGE,
    Ceiling,
    Fit,
    FittedParameter,
    FittedStage,
    ProbedSizes,
    Range,
    feeds_fit,
)
from bench.calibrate.cards import ALONE, Cards
from bench.calibrate.cost.ceilings import Ceilings
from bench.calibrate.cost.parameters import PARAMETERS, RATES
from bench.calibrate.cost.work import Work
from bench.calibrate.fit import (
    FitResult,
    Observation,
    bootstrap,
    constant_mfu_leave_one_out,
    fit,
    identified,
    leave_a_size_out,
    leave_one_out,
    upward,
)
from bench.calibrate.fitting.accuracy import INTERVAL, TooFewPoints, errors_of
from bench.calibrate.pools import Pool
from bench.calibrate.predict import dimensions
from bench.calibrate.training import fit_training
from bench.core.errors import UserError
from bench.core.specs.point import Point
from bench.measure.timing.sampling import UNSTABLE
from bench.results.readings import Timing
from bench.results.records import CeilingsRecord, PointRecord, Probe

CONFIDENCE = 0.95  # that the interval of a median has where there are samples enough


def fit_pool(pool: Pool, ceilings: CeilingsRecord, compared: Cards = ALONE) -> Fit:
    """compared: the cards that measured it; each one's seconds are taken as the typical card's.

    Raises TooFewPoints where its stages cannot bear the rates, UserError where a ceiling is
    missing."""
    asked = pool.asked[0]
    rates = ceilings_for(ceilings, pool.key.dtype, asked, pool.key.attention)
    observations = observations_of(pool.records, compared)
    fitted = fit(observations, rates)
    draws = bootstrap(observations, fitted)
    held_out = leave_one_out(observations, rates)
    by_stage: dict[str, list[float]] = defaultdict(list)
    for index, error in held_out.items():
        by_stage[observations[index].stage].append(error)
    steps = [o for o in observations if o.stage == "denoise_step"]
    known = _Known(pool.records)
    return Fit(
        recipe=pool.recipes[0],
        recipes=pool.recipes,
        dtype=pool.key.dtype,
        attention=asked,
        asked=pool.asked,
        rates=pool.key,
        training=fit_training(_training_steps(pool.records), fitted, known.stage),
        ceilings={name: getattr(rates, name) for name in get_args(Ceiling)},
        probed=ProbedSizes(**{name: getattr(rates, name) for name in ProbedSizes.model_fields}),
        parameters=_parameters(fitted, draws),
        draws=draws.tolist(),
        residuals=by_stage["denoise_step"],
        leave_one_out=errors_of(by_stage["denoise_step"]),
        leave_one_out_by_stage={
            s: e for s, es in by_stage.items() if (e := errors_of(es)) is not None
        },
        upward=errors_of(upward(observations, rates)),
        leave_a_size_out=errors_of(leave_a_size_out(observations, rates).values()),
        noise_floor=errors_of([-np.log1p(o.noise) for o in steps]),
        constant_mfu_baseline=errors_of(constant_mfu_leave_one_out(observations)),
        constant_mfu_flops_per_s=float(
            np.exp(np.mean([np.log(o.flops / o.seconds) for o in steps]))
        )
        if steps
        else None,
        card_draws=compared.draws(),
        converged=fitted.converged,
        ranges=_ranges(pool.records),
        stages=[
            known.stage(
                o,
                float(o.seconds * np.exp(-fitted.residuals[i])),
                float(o.seconds * np.exp(-held_out[i])) if i in held_out else None,
            )
            for i, o in enumerate(observations)
        ],
    )


class _Known:
    """The facts of records that an observation does not carry."""

    def __init__(self, records: list[PointRecord]):
        self.subjects = {record.label: _subject(record) for record in records}
        self.energies = {
            (record.label, stage): record.joules.get(stage)
            for record in records
            for stage in record.timings
        }

    def stage(self, o: Observation, fitted_s: float, held_out_s: float | None) -> FittedStage:
        return FittedStage(
            point=o.point,
            stage=o.stage,
            tokens=o.tokens,
            flops=o.flops,
            measured_s=o.seconds,
            fitted_s=fitted_s,
            held_out_s=held_out_s,
            subject=self.subjects[o.point],
            energy_j=self.energies[o.point, o.stage],
        )


def ceilings_for(
    record: CeilingsRecord, dtype: str, attention: str, ran: str | None = None
) -> Ceilings:
    """Measured ceilings for a recipe; of each kind the fastest probe, whatever its size.  Raises
    UserError naming the missing one.

    attention: as the recipe asks for it.  ran: the kernels that computed it, where that is
    known."""
    best = {
        "gemm": record.best("gemm", dtype),
        "attention": _attention_probe(record, dtype, attention, ran),
        "conv": record.best("conv3d", dtype),
        "copy": record.best("copy"),
    }
    missing = [
        f"{name}_{'bytes' if name == 'copy' else 'flops'}_per_s"
        for name, probe in best.items()
        if probe is None
    ]
    if missing:
        raise UserError(
            f"no ceiling measured for {', '.join(missing)} in {dtype}, attention {attention}"
        )
    gemm, attended, conv = (best[name].shape for name in ("gemm", "attention", "conv"))
    ladder = sorted(
        (float(p.bytes_moved), p.rate)
        for p in record.probes
        if p.kind == "copy" and p.dtype == "fp32"
    )
    return Ceilings(
        gemm_flops_per_s=best["gemm"].rate,
        attention_flops_per_s=best["attention"].rate,
        conv_flops_per_s=best["conv"].rate,
        copy_bytes_per_s=best["copy"].rate,
        gemm_size=(gemm["m"], gemm["n"], gemm["k"]),
        attention_size=(attended["tokens"], attended["tokens"], attended["head_dim"]),
        conv_size=(
            conv["frames"] * conv["height"] * conv["width"],
            conv["channels"],
            27 * conv["channels"],
        ),
        small_conv_flops_per_s=record.peak("small_conv3d", dtype),
        activation_bytes_per_s=record.peak("activation", dtype),
        fresh_bytes_per_s=record.peak("fresh_write")
        if record.environment.device == "cpu"
        else None,
        ladder=tuple(ladder),
    )


def _attention_probe(
    record: CeilingsRecord, dtype: str, attention: str, ran: str | None
) -> Probe | None:
    """The fastest of the kernels that ran, else of those that the recipe asks for.

    The best over all lengths is a fair cap: what a kernel reached at one length it can reach, and
    how much less it does at another is fitted (half-lengths and efficiency)."""
    probes = [p for p in record.probes if p.kind == "attention" and p.dtype == dtype]
    same = [p for p in probes if ran is not None and (p.backend_ran or p.backend) == ran]
    return max(
        same or [p for p in probes if p.backend == attention], key=lambda p: p.rate, default=None
    )


def observations_of(records: list[PointRecord], compared: Cards = ALONE) -> list[Observation]:
    """Every timed stage that feeds a fit.  Raises TooFewPoints where all denoise steps are of one
    size: no term of size shows then."""
    observations = [
        _observation(record, stage, compared.factor_of(record))
        for record in records
        for stage in record.timings
        if feeds_fit(stage)
    ]
    sizes = {(o.tokens, o.flops) for o in observations if o.stage == "denoise_step"}
    steps = sum(o.stage == "denoise_step" for o in observations)
    if len(sizes) == 1 and steps > 1:
        raise TooFewPoints(f"all {steps} denoise steps are of one size ({sizes.pop()[0]} tokens)")
    return observations


def _training_steps(records: list[PointRecord]) -> list[Observation]:
    return [
        _observation(record, TRAINING_STAGE)
        for record in records
        if TRAINING_STAGE in record.timings
    ]


def _observation(record: PointRecord, stage: str, factor: float = 1.0) -> Observation:
    count, timing = record.counts[stage], record.timings[stage]
    return Observation(
        record.label,
        stage,
        Work.of(count),
        timing.median_s / factor,
        count.flops,
        noise=noise_of(timing),
        tokens=record.tokens,
    )


def noise_of(timing: Timing) -> float:
    """Relative half-width that the 95 % interval of the median would have.

    Under six samples `low_s` to `high_s` is their range, which holds the median with less
    confidence (two samples: 50 %), so it is widened as a normal one would be.  One sample says
    nothing of its noise: what is called unstable is taken."""
    if timing.confidence <= 0:
        return UNSTABLE
    if timing.confidence >= CONFIDENCE:
        return timing.relative_half_width
    wanted, had = (
        NormalDist().inv_cdf((1 + share) / 2) for share in (CONFIDENCE, timing.confidence)
    )
    return timing.relative_half_width * wanted / had


def _parameters(fitted: FitResult, draws: np.ndarray) -> dict[str, FittedParameter]:
    low, high = np.percentile(draws, INTERVAL, axis=0)
    told = identified(draws)
    out = {}
    for i, (name, meaning) in enumerate(PARAMETERS.items()):
        value = float(fitted.theta[i])
        if not fitted.observed[i] and name in RATES:
            out[name] = FittedParameter(
                value=None, low=None, high=None, unit=meaning.unit, at_bound=False, identified=False
            )
        else:
            out[name] = FittedParameter(
                value=value,
                low=min(float(low[i]), value),
                high=max(float(high[i]), value),
                unit=meaning.unit,
                at_bound=fitted.at_bound(name) and bool(fitted.observed[i]),
                identified=bool(told[i] and fitted.observed[i]),
            )
    return out


def _subject(record: PointRecord) -> str | None:
    """None for a record of which no point can be made any more."""
    try:
        return Point.model_validate(record.point).subject
    except ValueError:
        return None


def _ranges(records: list[PointRecord]) -> dict[str, Range]:
    values: dict[str, list[float]] = defaultdict(list)
    for record in records:
        for name, value in dimensions(
            record.tokens, {s: record.counts[s] for s in record.timings}
        ).items():
            values[name].append(value)
    return {name: Range(low=min(v), high=max(v)) for name, v in values.items()}
