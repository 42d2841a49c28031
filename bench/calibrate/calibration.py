"""What a calibration holds, and how it is read back.  `bench.calibrate.calibrate` makes it."""

import json
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from bench.core.errors import UserError, nearest
from bench.core.records import Strict
from bench.core.store import CALIBRATION

SCHEMA_VERSION = 1


class Parameter(Strict):
    """A fitted parameter with its 90 % interval; null where no measured stage had work of its class."""

    value: float | None
    low: float | None
    high: float | None
    unit: str
    at_bound: bool


class Interval(Strict):
    """A quantity and its 90 % interval (of the medians, 95 % or their samples' range, for a measured one)."""

    value: float
    low: float
    high: float


class Errors(Strict):
    """|predicted / measured - 1|."""

    mean: float
    worst: float
    n: int


class Range(Strict):
    """What the calibrated denoise steps spanned: outside of it a prediction is an extrapolation."""

    low: float
    high: float


class FittedStage(Strict):
    """One observation and what the fit makes of it."""

    point: str
    stage: str
    tokens: int
    flops: int
    measured_s: float
    fitted_s: float
    held_out_s: float | None
    """Predicted by a fit without it; null where nothing else has its class of work."""


class Fit(Strict):
    """Efficiencies of one recipe on one device.  Provenance: fitted."""

    recipe: str
    dtype: str
    attention: str
    ceilings: dict[str, float]
    """gemm_flops_per_s, attention_flops_per_s, conv_flops_per_s, copy_bytes_per_s: measured."""
    parameters: dict[str, Parameter]
    draws: list[list[float]]
    """Bootstrap draws of the parameters, for intervals of predictions."""
    residuals: list[float]
    """Held-out log errors of the denoise steps: the spread of a prediction around its point."""
    leave_one_out: Errors | None
    """Of the denoise steps."""
    leave_one_out_by_stage: dict[str, Errors]
    upward: Errors | None
    """Denoise steps of the larger half, fitted on the smaller."""
    constant_mfu_baseline: Errors | None
    """One rate for all FLOPs, leave-one-out on the same denoise steps."""
    constant_mfu_flops_per_s: float | None
    converged: bool
    ranges: dict[str, Range]
    """tokens, step_flops, attention_share."""
    stages: list[FittedStage]


class Headline(Strict):
    """Minutes of video per GPU-hour of the suite's headline point."""

    model: str
    workload: str
    recipe: str
    gpu: str
    minutes_per_gpu_hour: Interval
    video_s: Interval
    provenance: Literal["measured", "fitted", "extrapolated"]
    warnings: list[str]


class Reference(Strict):
    """What the fit says of sora-20b on sora-1min-512: where the waterfall and the chain end."""

    gpu: str
    gemm_ceiling_flops_per_s: float
    denoise_minutes: float
    """Minutes of video per GPU-hour were there only the denoising steps."""
    minutes: Interval
    """All stages, guidance off: what `predict` says."""
    guided_minutes: float
    """The same with guidance on."""
    provenance: Literal["fitted", "extrapolated"]
    warnings: list[str]


class Calibration(Strict):
    """calibration.json."""

    schema_version: int = SCHEMA_VERSION
    gpu: str
    device_name: str
    suite: str
    headline_recipe: str
    headline: Headline | None
    headline_missing: str | None
    """Why there is no headline."""
    reference: Reference | None
    reference_missing: str | None
    fits: dict[str, Fit]
    power_w: float | None
    """Mean reading right after the denoise steps; null without NVML."""

    def fit_for(self, recipe: str | None) -> Fit:
        """The recipe's fit, the headline's where none is named.  Raises UserError for one not measured."""
        name = recipe or self.headline_recipe
        if name not in self.fits:
            raise UserError(f"recipe {name!r} is not calibrated in this result; calibrated: "
                            f"{', '.join(self.fits)}{nearest(name, self.fits)}")
        return self.fits[name]


def read_calibration(directory: Path) -> Calibration:
    """calibration.json of a result.  Raises UserError where it is missing, damaged or newer."""
    path = directory / CALIBRATION
    if not path.is_file():
        raise UserError(f"{directory}: no {CALIBRATION} in it; `ldt-bench calibrate {directory}` makes it")
    try:
        data = json.loads(path.read_text())
        if data.get("schema_version", 0) > SCHEMA_VERSION:
            raise UserError(f"{path}: schema version {data['schema_version']} is newer than this ldt-bench's "
                            f"{SCHEMA_VERSION}; upgrade it to read this calibration")
        return Calibration.model_validate(data)
    except (ValueError, AttributeError, ValidationError):
        raise UserError(f"{path}: damaged; `ldt-bench calibrate {directory}` makes it anew") from None
