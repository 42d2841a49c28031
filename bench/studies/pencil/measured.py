"""A calibration replaces the datasheet at 100 % in the chain: it gives seconds of its two
models, and of training."""

from dataclasses import dataclass
from pathlib import Path

from bench.calibrate.calibration import Calibration
from bench.calibrate.estimate import estimate
from bench.calibrate.predict import Estimate
from bench.calibrate.training import TrainingCost, training_cost
from bench.core.errors import UserError
from bench.core.load import datasheet, load_point
from bench.core.quantity import Quantity
from bench.core.reference import MODEL, WORKLOAD
from bench.core.specs.gpu import Gpu
from bench.core.specs.model import Model
from bench.core.specs.point import Point
from bench.core.specs.workload import Workload
from bench.results.records import PointRecord
from bench.results.store import point_records, read_records
from bench.studies.pencil.assumptions import Assumptions
from bench.studies.pencil.cross_model import IMAGE, SORA, TOKEN_MODEL, TOKENS, Rates
from bench.studies.pencil.same_clip import Clip, clip_of, measured_clips


@dataclass(frozen=True)
class MeasuredChain:
    """Everything that one card's result says of the chain's models, measured or predicted."""

    gpu: str
    minutes: Quantity
    """Minutes of video per GPU-hour, guidance off, as `predict` says of the chain's minute."""
    sora_step_s: Quantity
    dit_step_s: Quantity | None
    """A step of one 512x512 image at batch 1; None where the fit cannot say."""
    dit_image_s: Quantity | None
    """All stages."""
    training: TrainingCost | None
    training_missing: str | None
    sora: Estimate
    """The chain's minute."""
    warnings: list[str]
    units_s: dict[str, tuple[Quantity, str]]
    """Seconds of the units of bench.studies.pencil.cross_model -> with provenance."""
    clips: list[Clip]
    """The same clip by diffusion and token by token, as measured on this device."""
    ceilings: Rates
    """GEMM and copy."""
    card: Gpu | None
    one_speed: bool = False
    """Training and generation were measured apart."""


def measured_chain(
    a: Assumptions,
    calibration: Calibration,
    directory: Path,
    of: tuple[Model, Workload] | None = None,
) -> MeasuredChain:
    """Predict the chain's models (imports torch) and gather what was measured.  of: another model
    and video than the published estimate's.  Raises UserError where the calibration cannot say
    anything of the chain's minute."""
    if calibration.reference is None:
        raise UserError(f"--calibration {directory}: {calibration.reference_missing}")
    recipe = calibration.default_recipe
    fit = calibration.fit_for(recipe)
    point = load_point(MODEL, WORKLOAD, recipe)
    if of is not None:
        point = point.model_copy(update={"model": of[0], "workload": of[1]})
    sora = estimate(point, calibration)
    try:
        image = estimate(
            load_point("dit-xl-2", "image-512", recipe, {"workload.steps": a.steps}), calibration
        )
    except UserError:
        image = None
    training, missing = training_cost(fit)
    ceilings = Rates(
        f"measured ceilings of {calibration.gpu}, {fit.dtype}",
        fit.ceilings["gemm_flops_per_s"],
        fit.ceilings["copy_bytes_per_s"],
        fit.dtype,
    )
    records = point_records(read_records(directory))
    units = {SORA: (sora.stages["denoise"], sora.provenance)}
    if image is not None:
        units[IMAGE] = (image.stages["denoise"], image.provenance)
    tokens = measured_tokens(records, ceilings, recipe)
    if tokens is not None:
        units[TOKENS] = (tokens, "measured")
    rates = {
        name: calibration.fit_for(name).ceilings["gemm_flops_per_s"] for name in calibration.recipes
    }
    return MeasuredChain(
        gpu=calibration.gpu,
        minutes=sora.minutes_per_gpu_hour,
        sora_step_s=sora.step_s,
        dit_step_s=image.step_s if image else None,
        dit_image_s=image.video_s if image else None,
        training=training,
        training_missing=missing,
        sora=sora,
        warnings=sora.warnings,
        units_s=units,
        clips=measured_clips(records, rates, ceilings.bytes_per_s),
        ceilings=ceilings,
        card=datasheet(calibration.gpu),
    )


def measured_tokens(records: list[PointRecord], ceilings: Rates, recipe: str) -> Quantity | None:
    """Seconds of the auto-regressive minute, where this very point was measured."""
    subject = load_point(TOKEN_MODEL, WORKLOAD, recipe).subject
    for record in records:
        if (
            record.model == TOKEN_MODEL
            and record.timings
            and Point.model_validate(record.point).subject == subject
        ):
            clip = clip_of(record, ceilings.flops_per_s, ceilings.bytes_per_s)
            if clip is not None:
                return clip.seconds
    return None
