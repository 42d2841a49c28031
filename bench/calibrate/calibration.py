"""The fields of calibration.json.  `bench.calibrate.make` fits and writes it,
`bench.calibrate.read` reads it back."""

from collections.abc import Mapping
from typing import Annotated, Literal, get_args

from pydantic import ConfigDict, Field, model_validator

from bench.calibrate.cost.ceilings import Ceilings
from bench.calibrate.cost.parameters import NAMES, RATES
from bench.calibrate.fitting.accuracy import Errors
from bench.calibrate.pools import RatesKey, execution_of, models_of
from bench.core.errors import UserError, nearest
from bench.core.load import load
from bench.core.presets import is_preset
from bench.core.quantity import PositiveQuantity, Quantity
from bench.core.specs.model import TOKEN_STAGES, Model
from bench.core.specs.recipe import Recipe
from bench.results import base

SCHEMA_VERSION = 2
TRAINING_STAGE = "train_step"
HALF = ("bf16", "fp16")  # what a GPU runs these models in
# predicted by default on a GPU whose calibration has no half precision: it says so
GPU_RECIPE = "eager-bf16"
Ceiling = Literal[
    "gemm_flops_per_s", "attention_flops_per_s", "conv_flops_per_s", "copy_bytes_per_s"
]
Name = Literal[NAMES]  # type: ignore[valid-type]
Positive = base.Positive
NotNegative = Annotated[float, Field(ge=0.0)]


class Strict(base.Strict):
    """Finite numbers: what is read back is divided by, and printed as JSON."""

    model_config = ConfigDict(allow_inf_nan=False)


class FittedParameter(Strict):
    """A fitted parameter with its 90 % interval; a rate is null where no measured stage had work of
    its class."""

    value: Positive | None
    low: Positive | None
    high: Positive | None
    unit: str
    at_bound: bool
    identified: bool
    """The records say more of it than what was believed before; else value and interval are mostly
    that belief."""


class ProbedSizes(Strict):
    """The sizes and extra rates that the cost model takes beside the ceilings
    (bench.calibrate.cost.ceilings.Ceilings).  Provenance: measured."""

    gemm_size: tuple[int, int, int] | None = None
    attention_size: tuple[int, int, int] | None = None
    conv_size: tuple[int, int, int] | None = None
    small_conv_flops_per_s: Positive | None = None
    activation_bytes_per_s: Positive | None = None
    fresh_bytes_per_s: Positive | None = None
    ladder: tuple[tuple[Positive, Positive], ...] = ()


class Range(Strict):
    """The span of the calibrated denoise steps.  A prediction outside it is an extrapolation."""

    low: NotNegative
    high: NotNegative


class FittedStage(Strict):
    """One observation and what the fit makes of it."""

    point: str
    stage: str
    tokens: Annotated[int, Field(ge=1)]
    flops: Annotated[int, Field(ge=1)]
    measured_s: Positive
    fitted_s: Positive
    held_out_s: Positive | None
    """Predicted by a fit without it; null where nothing else has its class of work."""
    subject: str | None = None
    """Fingerprint of its model, workload and recipe."""
    energy_j: Positive | None = None
    """Measured energy of one call; null without an energy counter."""


class TrainingFit(Strict):
    """Training steps beside the inference fit, which they are no part of: their backward runs other
    kernels."""

    factor: PositiveQuantity
    """Seconds of a training step over those that the inference fit gives its counted operators.
    Provenance: fitted."""
    stages: Annotated[list[FittedStage], Field(min_length=1)]


class Fit(Strict):
    """Efficiencies of the recipes that run at the same rates on one device
    (bench.calibrate.pools).  Provenance: fitted."""

    recipe: str
    """The first of `recipes`, by which the fit is named."""
    recipes: list[str] = Field(default_factory=list)
    """Those whose points are in it.  In calibrations older than this field a fit has its own recipe
    alone."""
    dtype: str
    attention: str
    """As `recipe` asks for it."""
    asked: list[str] = Field(default_factory=list)
    """As each of `recipes` asks for it."""
    rates: RatesKey | None = None
    """The settings that all its points share; null in calibrations older than this field."""
    training: TrainingFit | None = None
    """Null where no training step was timed; in calibrations older than this field they are among
    `stages`."""
    ceilings: dict[Ceiling, Positive]
    """gemm_flops_per_s, attention_flops_per_s, conv_flops_per_s, copy_bytes_per_s: measured."""
    probed: ProbedSizes
    parameters: dict[Name, FittedParameter]
    draws: Annotated[list[list[Positive]], Field(min_length=1)]
    """Bootstrap draws of the parameters, for intervals of predictions."""
    residuals: list[float]
    """Held-out log errors of the denoise steps: the spread of a prediction around its point."""
    card_draws: list[Positive] = Field(default_factory=lambda: [1.0])
    """Factors of the seconds of a card that was not measured, at even steps of probability; [1] of
    a fit to one card."""
    leave_one_out: Errors | None
    """Errors of the denoise steps, each predicted by a fit without it."""
    leave_one_out_by_stage: dict[str, Errors]
    upward: Errors | None
    """Denoise steps of the larger half, fitted on the smaller."""
    leave_a_size_out: Errors | None
    """Denoise steps predicted without any point of their number of tokens."""
    noise_floor: Errors | None
    """Half-widths of the medians' intervals of the denoise steps: no prediction can be held to
    less."""
    constant_mfu_baseline: Errors | None
    """One rate for all FLOPs, leave-one-out on the same denoise steps."""
    constant_mfu_flops_per_s: Positive | None
    converged: bool
    ranges: dict[str, Range]
    """tokens, step_flops, attention_share."""
    stages: list[FittedStage]

    @model_validator(mode="after")
    def _complete(self) -> "Fit":
        for name, wanted in (("ceilings", get_args(Ceiling)), ("parameters", NAMES)):
            missing = set(wanted) - set(getattr(self, name))
            if missing:
                raise ValueError(f"{name}: {', '.join(sorted(missing))} missing")
        absent = [
            name for name, p in self.parameters.items() if p.value is None and name not in RATES
        ]
        if absent:
            raise ValueError(f"parameters: {', '.join(absent)} without a value")
        if any(len(draw) != len(NAMES) for draw in self.draws):
            raise ValueError(f"draws: each is to have {len(NAMES)} entries")
        self.recipes = self.recipes or [self.recipe]
        return self

    @property
    def title(self) -> str:
        """Its recipes in words, as reports name it."""
        named, more = self.recipes[:3], len(self.recipes) - 3
        words = ", ".join(named) + (f" and {more} more" if more > 0 else "")
        return words + (
            ", public models" if self.rates is not None and self.rates.models == "public" else ""
        )

    def factor_of(self, stage: str) -> Quantity | None:
        """By which the cost model's seconds of a stage are multiplied: 1 but for training.  None
        where no training step was timed."""
        if stage == TRAINING_STAGE and self.training is not None:
            return self.training.factor
        if stage == TRAINING_STAGE and not any(s.stage == TRAINING_STAGE for s in self.stages):
            return None
        return Quantity.exactly(1.0)

    def serves(self, recipe: Recipe) -> bool:
        """Does the recipe, though none of its points may be in the fit, run at the rates of those
        that are?"""
        return recipe.name in self.recipes or (
            self.rates is not None
            and self.rates.dtype == recipe.dtype
            and recipe.attention in (self.rates.attention, *self.asked)
            and self.rates.execution == execution_of(recipe.model_dump(mode="json"))
        )

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
    minutes_per_gpu_hour: PositiveQuantity
    video_s: PositiveQuantity
    provenance: Literal["measured", "fitted", "extrapolated"]
    warnings: list[str]


class Reference(Strict):
    """The fit's prediction of the reference point (bench.core.reference), where the waterfall and
    the chain end.  It is kept here because counting that point takes torch and 20 seconds."""

    gpu: str
    gemm_ceiling_flops_per_s: Positive
    denoise_minutes: Positive
    """Minutes of video per GPU-hour were there only the denoising steps."""
    minutes: PositiveQuantity
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
    """Of the denoise steps, their mean: from the energy counter, else from power readings.  Null
    without NVML."""
    sentinel_s: Positive | None = None
    """Median seconds of the sentinel product while its points were measured: how fast the machine
    itself was then."""
    stage_power_w: dict[str, Positive] = Field(default_factory=dict)
    """The same of every stage that has one."""

    @property
    def recipes(self) -> list[str]:
        """Those measured and fitted, the headline's first."""
        all_ = dict.fromkeys(name for fit in self.fits.values() for name in fit.recipes)
        return sorted(all_, key=lambda name: name != self.headline_recipe)

    @property
    def default_recipe(self) -> str:
        """The recipe to predict when none is named."""
        return default_recipe(
            self.gpu,
            self.headline_recipe,
            {r: f.dtype for f in self.fits.values() for r in f.recipes},
        )

    def fit_for(self, recipe: Recipe | str | None, model: Model | None = None) -> Fit:
        """The fit that predicts a recipe (of a model), the headline's where none is named.

        Raises UserError where neither the recipe nor one that runs at the same rates was
        measured."""
        name = recipe.name if isinstance(recipe, Recipe) else recipe or self.headline_recipe
        found = fit_serving(self.fits, recipe or name, model)
        if found is None:
            raise UserError(
                f"recipe {name!r} is not calibrated in this result; calibrated: "
                f"{', '.join(self.recipes)}{nearest(name, self.recipes)}"
            )
        return found


def fit_serving(
    fits: Mapping[str, Fit], recipe: Recipe | str, model: Model | None = None
) -> Fit | None:
    """Choose the fit that predicts a recipe; None where no fit does.  Every lookup from a recipe to
    a fit goes through here.

    First those with points of that very recipe, then those that run at its rates (`Fit.serves`; a
    name is looked up among the presets).  Where several do, e.g. as attention left to PyTorch ran
    two kernels: one of the model's own kind on a CPU, then the one with most denoising steps."""
    name = recipe if isinstance(recipe, str) else recipe.name
    found = [fit for fit in fits.values() if name in fit.recipes]
    if not found:
        asked = (
            recipe
            if isinstance(recipe, Recipe)
            else load(Recipe, name)
            if is_preset("recipes", name)
            else None
        )
        found = [] if asked is None else [fit for fit in fits.values() if fit.serves(asked)]
    return max(
        found,
        default=None,
        key=lambda fit: (fit_is_of(fit, model), sum(s.stage == "denoise_step" for s in fit.stages)),
    )


def fit_is_of(fit: Fit, model: Model | None) -> bool:
    """False where the fit is of own models and the model public, or the other way round, on a CPU,
    where kernels differ."""
    return model is None or fit.rates is None or fit.rates.models in (None, models_of("cpu", model))


def default_recipe(gpu: str, headline: str, dtypes: Mapping[str, str]) -> str:
    """The headline's on a CPU; on a GPU the first of half precision, the headline's before others.

    dtypes: calibrated recipe -> dtype.  Where a GPU's calibration has none of half precision,
    eager-bf16: looking up its fit then says that it was not measured, and float32 is predicted only
    where it is asked for."""
    if kind_of(gpu) == "cpu":
        return headline
    half = [name for name, dtype in dtypes.items() if dtype in HALF]
    return headline if headline in half else next(iter(half), GPU_RECIPE)


def kind_of(gpu: str) -> Literal["cpu", "cuda"]:
    """The kind of a device, from its name in a record's environment or in configs/gpus."""
    return "cpu" if gpu == "cpu" else "cuda"


def feeds_fit(stage: str) -> bool:
    """Is a stage an observation of the cost model?  A token's products of one row are bound by the
    bytes of the weights and would pull the half-sizes of the others; a training step has a factor
    of its own (TrainingFit)."""
    return stage not in TOKEN_STAGES and stage != TRAINING_STAGE
