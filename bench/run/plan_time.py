"""How long a suite will take and what it costs, said before anything is measured.

    point = what it takes to build and count it + for each stage: warm-up + samples, by the rules of
            bench.measure.timing.sampling, and on CUDA the energy window and a graph's replay
            where the call is short enough for them
    beside a baseline: both, of the stages that the recipe changes, the baseline with fewer samples

A stage's call is taken from, in this order: the same point in the earlier result; that result's
fitted cost equation (`fitted`); the cost equation at a rule of thumb of the device's rates
(`extrapolated`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from bench.calibrate.calibration import Fit
from bench.calibrate.cost.parameters import PARAMETERS
from bench.calibrate.cost.seconds import seconds_by_class
from bench.calibrate.cost.work import Work
from bench.core.errors import UserError
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
from bench.run.basis import KNOWN, POINT_S, THUMB_SPREAD, Basis

BUILD_BYTES_PER_S = {"cpu": 0.3e9, "cuda": 10e9}  # random weights


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
    thumb = {name: meaning.prior for name, meaning in PARAMETERS.items()} | dict(basis.efficiencies)
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
        "attention": basis.efficiencies["attention_efficiency"],
        "conv3d": basis.efficiencies["conv_efficiency"],
        "conv3d_benchmark": basis.efficiencies["conv_efficiency"],
        "small_conv3d": basis.efficiencies["conv_efficiency"],
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


def price_of(gpu: Gpu | None, given: float | None, cards: int = 1) -> Price | None:
    """What was given for the machine, else the range of so many cards; None where neither is.
    Raises UserError."""
    if given is None:
        one = gpu.price_usd_per_hour if gpu else None
        return one and one.model_copy(update={"low": cards * one.low, "high": cards * one.high})
    if not 0 < given <= 1e6:
        raise UserError(
            f"--price {given:g}: expected dollars an hour, over 0 and at most 1,000,000"
        )
    return Price(low=given, high=given, date="now", source="--price")
