"""What a prediction of a suite's time rests on: earlier result, quick probe or rule of thumb."""

import statistics
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.calibrate.calibration import Fit, fit_serving
from bench.calibrate.cost.ceilings import Ceilings
from bench.calibrate.evidence.card import read_card, shares
from bench.calibrate.read import read_calibration
from bench.core.errors import EnvironmentFault, UserError
from bench.core.quantity import Quantity
from bench.core.specs.gpu import Gpu
from bench.core.specs.point import Point
from bench.core.specs.recipe import DTYPE_BYTES
from bench.results.records import FINISHED
from bench.results.store import (
    CALIBRATION,
    ceilings_record,
    on_one_card,
    point_records,
    read_records,
)

# This project's choice, for a device without records that nothing is published of; shares of
# datasheet or probed rates.
THUMB = {
    "linear_efficiency": 0.5,
    "attention_efficiency": 0.3,
    "conv_efficiency": 0.3,
    "memory_efficiency": 0.7,
    "kernel_s": 1e-5,
}
THUMB_SPREAD = 2.0  # a rule of thumb may be wrong by this factor either way
POINT_S = 0.6  # to count a point and to collect what the last one left
CUDA_POINT_S = 1.0  # the same on a card, kernels loaded and algorithms chosen at the first call
START_AND_FINISH_S = 7.0  # torch in the worker; the fit, its figures and the report
CUDA_START_AND_FINISH_S = 20.0  # and the card's context and its libraries
KNOWN = ("measured", "fitted")


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
    efficiencies: Mapping[str, float] = field(default_factory=lambda: THUMB)
    """Shares of `rates` where no fit says more, as THUMB has them."""
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


def basis_from(directory: Path, device: str) -> Basis:
    """The calibration and the times of an earlier result.  Raises UserError, EnvironmentFault."""
    calibration = read_calibration(directory)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a torn last line: whoever reads that result is told
        records = read_records(directory)
    points = [r for r in on_one_card(point_records(records)) if r.outcome in FINISHED and r.timings]
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


def sheet_basis(gpu: Gpu | None, device: str) -> Basis | None:
    """Shares of the datasheet's rates that others' runs of the card reach, or a rule of thumb where
    nothing is published of it; None without a datasheet."""
    if gpu is None or not gpu.peak_flops_per_s or gpu.bandwidth_bytes_per_s is None:
        return None
    rates = {
        dtype: Ceilings(rate, rate, rate, gpu.bandwidth_bytes_per_s)
        for dtype, rate in gpu.peak_flops_per_s.items()
    }
    shares, rests = _shares(gpu)
    return Basis(
        words=f"extrapolated: {share_words(shares)} of the datasheet of {gpu.name}{rests}",
        device=device,
        rates=rates,
        efficiencies=shares,
        point_s=_thumb_point_s(device),
    )


def probed_basis(gemm: Mapping[str, float], copy: float, device: str) -> Basis:
    """A share of what a quick probe reached."""
    return Basis(
        words=f"extrapolated: {share_words(THUMB)} of a quick GEMM and copy probe",
        device=device,
        rates={dtype: Ceilings(rate, rate, rate, copy) for dtype, rate in gemm.items()},
        point_s=_thumb_point_s(device),
    )


def fixed_basis(device: str) -> Basis:
    """The same on every machine, to share points by: round rates of a CPU core or of an H100."""
    rate, copy = {"cpu": (1e11, 1e10), "cuda": (5e14, 2e12)}[device]
    rates = dict.fromkeys(DTYPE_BYTES, Ceilings(rate, rate, rate, copy))
    words = "extrapolated: round rates, the same on every machine"
    return Basis(words=words, device=device, rates=rates, point_s=_thumb_point_s(device))


def _shares(gpu: Gpu) -> tuple[Mapping[str, float], str]:
    """-> shares of the datasheet, and what they rest on in words."""
    try:
        card, reached = read_card(gpu.name), shares(gpu.name)
    except UserError:
        return THUMB, ""
    published = {
        "linear_efficiency": reached["linear"],
        "attention_efficiency": reached["attention"],
        "conv_efficiency": reached["vae"],
    }
    rests = f"{card.n} rows" if card.n else f"{card.n_all} rows of other cards"
    return THUMB | published, f", as others' runs reach with FlashAttention-2 ({rests})"


def _thumb_point_s(device: str) -> float:
    return CUDA_POINT_S if device == "cuda" else POINT_S


def share_words(shares: Mapping[str, float]) -> str:
    return ", ".join(
        f"{shares[f'{name}_efficiency']:.0%} ({name})" for name in ("linear", "attention", "conv")
    )
