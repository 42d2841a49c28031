"""What a calibration holds, and how it is read back.  `bench.calibrate.calibrate` makes it."""

from pathlib import Path
from typing import Annotated, Literal, get_args

import pydantic_core
from pydantic import ConfigDict, Field, ValidationError, model_validator

from bench.calibrate.cost_model import NAMES, RATES, Ceilings
from bench.core import records
from bench.core.errors import UserError, nearest
from bench.core.store import CALIBRATION, first_problem, read_bytes

SCHEMA_VERSION = 2
Ceiling = Literal["gemm_flops_per_s", "attention_flops_per_s", "conv_flops_per_s", "copy_bytes_per_s"]
Name = Literal[NAMES]  # type: ignore[valid-type]
Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]


class Strict(records.Strict):
    """Finite numbers: what is read back is divided by, and printed as JSON."""

    model_config = ConfigDict(allow_inf_nan=False)


class Parameter(Strict):
    """A fitted parameter with its 90 % interval; a rate is null where no measured stage had work of its class."""

    value: Positive | None
    low: Positive | None
    high: Positive | None
    unit: str
    at_bound: bool
    identified: bool
    """The records say more of it than what was believed before; else value and interval are mostly that belief."""


class Interval(Strict):
    """A quantity and its 90 % interval (of the medians, 95 % or their samples' range, for a measured one)."""

    value: Positive
    low: NotNegative
    high: NotNegative


class Errors(Strict):
    """|predicted / measured - 1|."""

    mean: float
    median: float
    worst: float
    n: int


class ProbedSizes(Strict):
    """What the cost model knows of the ceilings beside their rates (bench.calibrate.cost_model.Ceilings).  Measured."""

    gemm_size: tuple[int, int, int] | None = None
    attention_size: tuple[int, int, int] | None = None
    conv_size: tuple[int, int, int] | None = None
    small_conv_flops_per_s: Positive | None = None
    activation_bytes_per_s: Positive | None = None
    fresh_bytes_per_s: Positive | None = None
    ladder: tuple[tuple[Positive, Positive], ...] = ()


class Range(Strict):
    """What the calibrated denoise steps spanned: outside of it a prediction is an extrapolation."""

    low: NotNegative
    high: NotNegative


class FittedStage(Strict):
    """One observation and what the fit makes of it."""

    point: str
    stage: str
    tokens: int
    flops: int
    measured_s: Positive
    fitted_s: Positive
    held_out_s: Positive | None
    """Predicted by a fit without it; null where nothing else has its class of work."""
    subject: str | None = None
    """Fingerprint of its model, workload and recipe."""
    energy_j: Positive | None = None
    """Of one call, measured; null without an energy counter."""


class Fit(Strict):
    """Efficiencies of one recipe on one device.  Provenance: fitted."""

    recipe: str
    dtype: str
    attention: str
    ceilings: dict[Ceiling, Positive]
    """gemm_flops_per_s, attention_flops_per_s, conv_flops_per_s, copy_bytes_per_s: measured."""
    probed: ProbedSizes
    parameters: dict[Name, Parameter]
    draws: Annotated[list[list[Positive]], Field(min_length=1)]
    """Bootstrap draws of the parameters, for intervals of predictions."""
    residuals: list[float]
    """Held-out log errors of the denoise steps: the spread of a prediction around its point."""
    leave_one_out: Errors | None
    """Of the denoise steps."""
    leave_one_out_by_stage: dict[str, Errors]
    upward: Errors | None
    """Denoise steps of the larger half, fitted on the smaller."""
    leave_a_size_out: Errors | None
    """Denoise steps predicted without any point of their number of tokens."""
    noise_floor: Errors | None
    """Half-widths of the medians' intervals of the denoise steps: no prediction can be held to less."""
    constant_mfu_baseline: Errors | None
    """One rate for all FLOPs, leave-one-out on the same denoise steps."""
    constant_mfu_flops_per_s: float | None
    converged: bool
    ranges: dict[str, Range]
    """tokens, step_flops, attention_share."""
    stages: list[FittedStage]

    @model_validator(mode="after")
    def _complete(self) -> "Fit":
        for name, names in (("ceilings", get_args(Ceiling)), ("parameters", NAMES)):
            missing = set(names) - set(getattr(self, name))
            if missing:
                raise ValueError(f"{name}: {', '.join(sorted(missing))} missing")
        absent = [name for name, p in self.parameters.items() if p.value is None and name not in RATES]
        if absent:
            raise ValueError(f"parameters: {', '.join(absent)} without a value")
        if any(len(draw) != len(NAMES) for draw in self.draws):
            raise ValueError(f"draws: each is to have {len(NAMES)} entries")
        return self

    @property
    def device(self) -> Ceilings:
        """Ceilings as the cost model takes them."""
        return Ceilings(**self.ceilings, **dict(self.probed))


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
    gemm_ceiling_flops_per_s: Positive
    denoise_minutes: Positive
    """Minutes of video per GPU-hour were there only the denoising steps."""
    minutes: Interval
    """All stages, guidance off: what `predict` says."""
    guided_minutes: Positive
    """The same with guidance on."""
    provenance: Literal["fitted", "extrapolated"]
    warnings: list[str]


class Calibration(Strict):
    """calibration.json."""

    schema_version: Literal[2] = SCHEMA_VERSION
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
    power_w: Positive | None
    """Of the denoise steps, their mean: from the energy counter, else from power readings.  Null without NVML."""
    sentinel_s: Positive | None = None
    """Median seconds of the sentinel product while its points were measured: how fast the machine itself was then."""
    stage_power_w: dict[str, Positive] = Field(default_factory=dict)
    """The same of every stage that has one."""

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
    if not directory.is_dir():
        raise UserError(f"{directory}: no such result directory")
    if not path.is_file():
        raise UserError(f"{directory}: no {CALIBRATION} in it; `ldt-bench calibrate {directory}` makes it")
    problem = "not a JSON object"
    try:
        data = pydantic_core.from_json(read_bytes(path))         # bounds the depth
        version = data.get("schema_version") if isinstance(data, dict) else None
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise UserError(f"{path}: schema version {version} is newer than this ldt-bench's "
                            f"{SCHEMA_VERSION}; upgrade it to read this calibration")
        if isinstance(version, int) and version < SCHEMA_VERSION:
            raise UserError(f"{path}: schema version {version} is of an older cost model; "
                            f"`ldt-bench calibrate {directory}` makes it anew from the records")
        if isinstance(data, dict):
            return Calibration.model_validate(data)
    except ValidationError as error:
        problem = first_problem(error)
    except ValueError as error:
        problem = str(error)
    raise UserError(f"{path}: damaged ({problem}); `ldt-bench calibrate {directory}` makes it anew")
