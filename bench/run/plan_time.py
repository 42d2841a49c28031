"""How long a suite will take and what it costs, said before anything is measured.

    point = what it takes to build and count it + for each stage: warm-up + samples, by the rules of
    bench.measure.timing.sampling,
            and on CUDA the energy window and a graph's replay where the call is short enough for
            them
    beside a baseline: both, of the stages that the recipe changes, the baseline with fewer samples

A stage's call is taken from, in this order: the same point in the earlier result; that result's
fitted cost equation (`fitted`); the cost equation at a rule of thumb of the device's rates
(`extrapolated`).
"""

import statistics
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.calibrate.calibration import Fit, fit_serving
from bench.calibrate.cost_model import PARAMETERS, Ceilings, Work, seconds_by_class
from bench.calibrate.read import read_calibration
from bench.core.errors import EnvironmentFault, UserError
from bench.core.quantity import Quantity
from bench.core.specs.gpu import Gpu, Price
from bench.core.specs.point import Point
from bench.core.specs.suite import Sampling
from bench.core.units import SECONDS_PER_HOUR
from bench.measure.timing.sampling import (
    ENERGY_WINDOW_S,
    LONGEST_REPLAYED_S,
    REPLAY_S,
    ROUND_S,
    baseline_plan,
    long_samples,
)
from bench.results.counts import StageCount
from bench.results.records import FINISHED
from bench.results.store import CALIBRATION, ceilings_record, point_records, read_records

# This project's choice, for a device without records; shares of datasheet or probed rates.
THUMB = {
    "linear_efficiency": 0.5,
    "attention_efficiency": 0.3,
    "conv_efficiency": 0.3,
    "memory_efficiency": 0.7,
    "kernel_s": 1e-5,
}
THUMB_SPREAD = 2.0  # a rule of thumb may be wrong by this factor either way
POINT_S = 0.6  # to count a point and to collect what the last one left
BUILD_BYTES_PER_S = {"cpu": 0.3e9, "cuda": 10e9}  # random weights
CUDA_POINT_S = 1.0  # the same on a card, kernels loaded and algorithms chosen at the first call
START_AND_FINISH_S = 7.0  # torch in the worker; the fit, its figures and the report
CUDA_START_AND_FINISH_S = 20.0  # and the card's context and its libraries
KNOWN = ("measured", "fitted")


NOTHING = Quantity(0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Forecast:
    """One job's time."""

    span: Quantity
    provenance: str
    """measured, fitted or extrapolated; of several stages the weakest."""

    @property
    def least_s(self) -> float:
        """What a budget has to have left for it: a rule of thumb is taken at its low end."""
        return self.span.value if self.provenance in KNOWN else self.span.low


@dataclass(frozen=True)
class Basis:
    """What predictions rest on."""

    words: str
    device: str
    """cpu or cuda."""
    rates: Mapping[str, Ceilings] = field(default_factory=dict)
    """By dtype, for the rule of thumb."""
    fits: Mapping[str, Fit] = field(default_factory=dict)
    """As bench.calibrate.calibration.Calibration has them."""
    measured: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Fingerprint of a point -> stage -> median seconds."""
    point_s: float = POINT_S
    ceilings_s: float | None = None

    @property
    def start_and_finish(self) -> Quantity:
        """What a run takes beside its jobs."""
        middle = CUDA_START_AND_FINISH_S if self.device == "cuda" else START_AND_FINISH_S
        return Quantity(middle, middle / 2, 2 * middle)

    def fit_for(self, point: Point) -> Fit | None:
        """The fit that predicts its recipe, None where none does."""
        return fit_serving(self.fits, point.recipe, point.model)


def stage_time(call_s: float, plan: Sampling, spread: float = 1.0) -> Quantity:
    """Warm-up and samples of a call that takes call_s.  The least where the first samples agree,
    the most where the stage's time or number of samples runs out, and halfway between the two.

    spread: the factor by which call_s may be wrong."""
    if spread != 1.0:
        value = stage_time(
            call_s, plan
        ).value  # a long call takes fewer samples, so less may follow from more
        return Quantity(
            value,
            min(value, stage_time(call_s / spread, plan).low),
            max(value, stage_time(call_s * spread, plan).high),
        )
    few = long_samples(call_s)
    if few is not None:
        return Quantity(*[(1 + few) * call_s] * 3)  # one warm-up
    warm = 2 * call_s
    most = min(plan.max_samples * call_s, max(plan.max_s, min(3, plan.min_samples) * call_s))
    least = min(most, max(plan.min_samples * call_s, min(ROUND_S, plan.max_samples * call_s)))
    return Quantity(warm + (least + most) / 2, warm + least, warm + most)


def call_time(
    point: Point, stage: str, count: StageCount | None, basis: Basis
) -> tuple[float, str] | None:
    """(seconds of one call, provenance); None where nothing is known of this kind of work on this
    device."""
    before = basis.measured.get(point.fingerprint, {}).get(stage)
    if before is not None:
        return before, "measured"
    if count is None:
        return None
    fit = basis.fit_for(point)
    rates = basis.rates.get(point.recipe.dtype)
    if fit is not None:
        rates = fit.device
        theta = {name: p.value for name, p in fit.parameters.items()}
        try:
            inference, factor = (
                sum(seconds_by_class(Work.of(count), theta, rates).values()),
                fit.factor_of(stage),
            )
            if factor is not None:  # else a training step, and none was timed
                return inference * factor.value, "fitted"
        except ValueError:
            pass  # a class of work that the fit never saw
    if rates is None:
        return None
    thumb = {name: meaning.prior for name, meaning in PARAMETERS.items()} | THUMB
    return sum(seconds_by_class(Work.of(count), thumb, rates).values()), "extrapolated"


def beside_calls(call_s: float, basis: Basis) -> float:
    """Seconds of the calls that are made for energy and for launches alone.  An earlier result has
    them in its point_s."""
    if basis.device != "cuda" or basis.measured:
        return 0.0
    window = ENERGY_WINDOW_S + call_s / 2 if call_s < ENERGY_WINDOW_S else 0.0
    return window + (REPLAY_S + 3 * call_s if call_s <= LONGEST_REPLAYED_S else 0.0)


def point_time(
    point: Point,
    counts: Mapping[str, StageCount],
    weights: int,
    plan: Sampling,
    basis: Basis,
    stages: Sequence[str] | None = None,
) -> Forecast | None:
    """A point's whole time.  weights: bytes that are built, 0 where not known; stages: those that
    are timed, all by default.  None where a stage has no prediction."""
    calls = [
        call_time(point, stage, counts.get(stage), basis)
        for stage in (point.stages if stages is None else stages)
    ]
    if None in calls:
        return None
    fixed = basis.point_s + weights / BUILD_BYTES_PER_S[basis.device]
    span = Quantity(fixed, fixed, fixed)
    for call_s, provenance in calls:  # type: ignore[misc]
        beside = beside_calls(call_s, basis)
        span += stage_time(call_s, plan, _spread(provenance, basis.fit_for(point)))
        span += Quantity(beside, beside, beside)
    provenances = {p for _, p in calls}  # type: ignore[misc]
    return Forecast(
        span, next(p for p in ("extrapolated", "fitted", "measured") if p in provenances)
    )


def time_beside(
    point: Point,
    baseline: Point,
    reused: Sequence[str],
    counts: Mapping[str, StageCount],
    baseline_counts: Mapping[str, StageCount],
    weights: int,
    plan: Sampling,
    basis: Basis,
) -> Forecast | None:
    """A point in turns with its baseline (bench.measure.points.against).  reused: stages that are
    not timed again.

    What is compared at the end is what the timed calls left, but for a trajectory that was not
    timed, and the decoding."""
    timed = [stage for stage in point.stages if stage not in reused]
    own = point_time(point, counts, weights, plan, basis, timed)
    again = replace(
        basis, point_s=min(basis.point_s, POINT_S)
    )  # its kernels were loaded by its own point
    beside = point_time(baseline, baseline_counts, weights, baseline_plan(plan), again, timed)
    if own is None or beside is None:
        return None
    span = own.span + beside.span
    compared = ("trajectory", "vae_decode") if "trajectory" in point.stages else ()
    for stage in (s for s in compared if s in point.stages and (s == "vae_decode" or s in reused)):
        for side, known in ((point, counts), (baseline, baseline_counts)):
            call = call_time(side, stage, known.get(stage), basis)
            span += Quantity(call[0], call[0], call[0]) if call is not None else NOTHING
    return Forecast(span, own.provenance)


def _spread(provenance: str, fit: Fit | None) -> float:
    if provenance != "fitted":
        return THUMB_SPREAD if provenance == "extrapolated" else 1.0
    error = (
        fit.leave_one_out.mean
        if fit is not None and fit.leave_one_out is not None
        else THUMB_SPREAD - 1
    )
    return 1 + error


def ceilings_time(
    probes: list[Mapping[str, object]], plan: Sampling, basis: Basis
) -> Forecast | None:
    """From the earlier result's, else from the probes' own work at the rule of thumb."""
    if basis.ceilings_s is not None:
        return Forecast(Quantity(*[basis.ceilings_s] * 3), "measured")
    share = {
        "gemm": 1.0,
        "attention": THUMB["attention_efficiency"],
        "conv3d": THUMB["conv_efficiency"],
        "conv3d_benchmark": THUMB["conv_efficiency"],
        "small_conv3d": THUMB["conv_efficiency"],
    }
    span = NOTHING
    for probe in probes:
        rates = basis.rates.get(str(probe["dtype"])) or next(iter(basis.rates.values()), None)
        if rates is None:
            return None
        call_s = (
            probe["flops"] / rates.gemm_flops_per_s / share[str(probe["kind"])]
            if probe["flops"]  # type: ignore
            else probe["bytes_moved"] / rates.copy_bytes_per_s
        )  # type: ignore
        span += stage_time(call_s, plan, THUMB_SPREAD)
    return Forecast(span, "extrapolated")


def usd(seconds_: Quantity, price: Price | None) -> Quantity | None:
    """Dollars: the middle of the price range, from the least time at the lowest price to the most
    at the highest."""
    if price is None:
        return None
    hours = [s / SECONDS_PER_HOUR for s in (seconds_.value, seconds_.low, seconds_.high)]
    return Quantity(
        hours[0] * (price.low + price.high) / 2, hours[1] * price.low, hours[2] * price.high
    )


def price_of(gpu: Gpu | None, given: float | None) -> Price | None:
    """What was given, else the card's range; None where neither is.  Raises UserError."""
    if given is None:
        return gpu.price_usd_per_hour if gpu else None
    if not 0 < given <= 1e6:
        raise UserError(
            f"--price {given:g}: dollars an hour are expected, over 0 and at most 1,000,000"
        )
    return Price(low=given, high=given, date="now", source="--price")


def basis_from(directory: Path, device: str) -> Basis:
    """The calibration and the times of an earlier result.  Raises UserError, EnvironmentFault."""
    calibration = read_calibration(directory)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a torn last line: whoever reads that result is told
        records = read_records(directory)
    points = [r for r in point_records(records) if r.outcome in FINISHED and r.timings]
    rest = [
        max(0.0, r.wall_s - sum(sum(t.samples_s) + sum(t.warmup_s) for t in r.timings.values()))
        for r in points
    ]
    ceilings = ceilings_record(records)
    return Basis(
        words=f"the result of {directory.name}: its own points as measured, others by its fit",
        device=device,
        fits=calibration.fits,
        measured={
            r.fingerprint: {stage: t.median_s for stage, t in r.timings.items()} for r in points
        },
        rates={fit.dtype: fit.device for fit in calibration.fits.values()},
        point_s=statistics.median(rest) if rest else POINT_S,
        ceilings_s=ceilings.wall_s if ceilings else None,
    )


def latest_basis(
    root: Path, gpu: str, device: str, device_name: str, recipes: set[str]
) -> Basis | None:
    """The newest calibrated result of the same device under `root`, one that knows all the recipes
    before one that knows some.  A result that cannot be read is passed over: nobody asked for
    it."""
    some = None
    directories = (
        [d for d in (root / gpu).glob("*/") if (d / CALIBRATION).is_file()] if root.is_dir() else []
    )
    for directory in sorted(directories, key=lambda d: d.name, reverse=True):
        try:
            calibration = read_calibration(directory)
            served = {name for name in recipes if fit_serving(calibration.fits, name) is not None}
            if calibration.device_name != device_name or not served:
                continue
            if served == recipes:
                return basis_from(directory, device)
            some = some or basis_from(directory, device)
        except (UserError, EnvironmentFault):
            continue
    return some


def thumb_basis(gpu: Gpu | None, device: str) -> Basis | None:
    """A share of the datasheet's rates; None where there is none."""
    if gpu is None or not gpu.peak_flops_per_s or gpu.bandwidth_bytes_per_s is None:
        return None
    rates = {
        dtype: Ceilings(rate, rate, rate, gpu.bandwidth_bytes_per_s)
        for dtype, rate in gpu.peak_flops_per_s.items()
    }
    return Basis(
        words=f"extrapolated: {thumb_words()} of the datasheet of {gpu.name}",
        device=device,
        rates=rates,
        point_s=_thumb_point_s(device),
    )


def probed_basis(gemm: Mapping[str, float], copy: float, device: str) -> Basis:
    """A share of what a quick probe reached."""
    return Basis(
        words=f"extrapolated: {thumb_words()} of a quick GEMM and copy probe",
        device=device,
        rates={dtype: Ceilings(rate, rate, rate, copy) for dtype, rate in gemm.items()},
        point_s=_thumb_point_s(device),
    )


def _thumb_point_s(device: str) -> float:
    return CUDA_POINT_S if device == "cuda" else POINT_S


def thumb_words() -> str:
    return ", ".join(
        f"{THUMB[f'{name}_efficiency']:.0%} ({name})" for name in ("linear", "attention", "conv")
    )
