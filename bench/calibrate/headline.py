"""The two points that a calibration predicts at once: its suite's headline, and the reference point
of the published estimates."""

from pathlib import Path

from bench.calibrate.calibration import (
    Calibration,
    Headline,
    Reference,
)
from bench.calibrate.estimate import estimate
from bench.core.load import headline_point, load_point
from bench.core.quantity import Quantity
from bench.core.reference import MODEL, WORKLOAD
from bench.core.specs.point import Point
from bench.core.specs.suite import Suite
from bench.results.records import PointRecord
from bench.results.store import (
    point_records,
    read_records,
    read_suite,
)
from bench.results.video import (
    MEASURED,
    calls_per_video,
    minutes_from,
    minutes_per_gpu_hour,
    stage_seconds,
)


def headline(suite: Suite, records: list[PointRecord], calibration: Calibration) -> Headline:
    """Measured where every stage of the headline point was timed, else predicted.  Raises
    UserError."""
    measured = measured_headline(suite, records)
    if measured is not None:
        return measured
    point = headline_point(suite)
    predicted = estimate(point, calibration)
    return Headline(
        model=point.model.name,
        workload=point.workload.name,
        recipe=point.recipe.name,
        gpu=calibration.gpu,
        minutes_per_gpu_hour=predicted.minutes_per_gpu_hour,
        video_s=predicted.video_s,
        provenance=predicted.provenance,
        warnings=predicted.warnings,
    )


def headline_of(
    directory: Path, calibration: Calibration | None
) -> tuple[Headline | None, str | None]:
    """A result's headline, and why there is none.  A measured one stands without a calibration.
    Raises UserError."""
    if calibration is not None:
        return calibration.headline, calibration.headline_missing
    headline = measured_headline(read_suite(directory), point_records(read_records(directory)))
    return headline, None if headline else "not calibrated, and its point was not measured whole"


def measured_headline(suite: Suite, records: list[PointRecord]) -> Headline | None:
    """The headline where every stage of its point was timed, in one record or in several: no fit is
    needed for it.  Else None.

    The point is known by what it is, not by its name: a user's own YAML may be called like a
    preset."""
    point = headline_point(suite)
    own, stages = of_headline(point, records), measured_stages(point, records)
    if stages is None:
        return None
    video_s = Quantity.sum(stages.values())
    return Headline(
        model=point.model.name,
        workload=point.workload.name,
        recipe=point.recipe.name,
        gpu=own[0].environment.gpu,
        video_s=video_s,
        provenance="measured",
        warnings=[r.reason for r in own if r.outcome == "unstable" and r.reason],
        minutes_per_gpu_hour=minutes_from(
            point.workload, video_s.scaled(point.recipe.cards_of_one_sample)
        ),
    )


def of_headline(point: Point, records: list[PointRecord]) -> list[PointRecord]:
    """Its records that have timings."""
    return [
        r
        for r in records
        if r.outcome in MEASURED and Point.model_validate(r.point).subject == point.subject
    ]


def measured_stages(point: Point, records: list[PointRecord]) -> dict[str, Quantity] | None:
    """Seconds of one batch of videos by stage; None where a stage of the point was not timed."""
    own = of_headline(point, records)
    if not own:
        return None
    timings = {stage: timing for record in own for stage, timing in record.timings.items()}
    calls = calls_per_video(point.workload, own[0].counts)
    return stage_seconds(calls, timings)


def reference(calibration: Calibration) -> Reference:
    """Raises UserError where the fit lacks a class of work that the reference point needs."""
    point = load_point(MODEL, WORKLOAD, calibration.default_recipe)
    predicted = estimate(point, calibration)
    stages = {name: q.value for name, q in predicted.stages.items()}
    guided = 2 * stages["denoise"] + stages["vae_decode"] + 2 * stages["text_encode"]
    return Reference(
        gpu=calibration.gpu,
        gemm_ceiling_flops_per_s=calibration.fit_for(point.recipe, point.model).ceilings[
            "gemm_flops_per_s"
        ],
        denoise_minutes=minutes_per_gpu_hour(point.workload, stages["denoise"]),
        minutes=predicted.minutes_per_gpu_hour,
        guided_minutes=minutes_per_gpu_hour(point.workload, guided),
        provenance=predicted.provenance,
        warnings=predicted.warnings,
    )
