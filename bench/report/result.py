"""A result as its reports see it: its measurements, their fits, and the chain that ends there.

report.md, report.html and the figures are all made from this one reading of the directory.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

from bench.calibrate.calibration import (
    Calibration,
    Fit,
    Headline,
    Reference,
    feeds_fit,
)
from bench.calibrate.cost.seconds import share_by_parameter
from bench.calibrate.cost.work import Work
from bench.calibrate.estimate import estimate
from bench.calibrate.headline import headline_of, measured_stages
from bench.calibrate.read import read_calibration
from bench.core.errors import UserError
from bench.core.load import datasheet, headline_point, load, names
from bench.core.quantity import Quantity
from bench.core.specs.claim import Claim
from bench.core.specs.gpu import Gpu
from bench.core.specs.point import Point
from bench.core.specs.suite import Suite
from bench.core.units import seconds
from bench.core.version import version
from bench.measure.timing.sampling import stalls
from bench.report.tables.claims import claims_document
from bench.results.environment import Environment, cards_in
from bench.results.records import CeilingsRecord, PointRecord
from bench.results.store import (
    CALIBRATION,
    ceilings_record,
    point_records,
    read_records,
    read_suite,
)
from bench.results.video import (
    MEASURED,
    calls_per_video,
    minutes_from,
    video_joules,
    video_seconds,
)
from bench.run.plan_time import price_of
from bench.studies.ablations.gains import Ablation, ablations
from bench.studies.claims.ledger import evidence_from, ledger
from bench.studies.claims.published import published_shelf
from bench.studies.pencil.analytic import published_rows, rows_from
from bench.studies.pencil.assumptions import Assumptions
from bench.studies.pencil.sensitivity import Swing, headline_swings
from bench.studies.pencil.waterfall import Bar, waterfall


@dataclass(frozen=True)
class WholeVideo:
    """A point whose every stage was timed: the seconds of one batch of videos, by stage.
    Provenance: measured."""

    record: PointRecord
    seconds: dict[str, float]
    """Stage -> its calls x the median of one."""
    total: Quantity
    """Sum of the stages, with the sums of their intervals' ends."""
    video_s: float
    """Seconds of video that the batch holds."""
    minutes: Quantity
    """Of video per hour of the device; of a mesh per hour of each card."""
    joules: float | None
    """Energy of all calls; None where a stage has no reading."""


@dataclass(frozen=True)
class Result:
    """Everything a report shows, read once."""

    directory: Path
    suite: Suite
    records: list[PointRecord | CeilingsRecord]
    calibration: Calibration | None
    headline: Headline | None
    headline_missing: str | None
    bars: list[Bar]

    @cached_property
    def points(self) -> list[PointRecord]:
        """Each by its last record."""
        return point_records(self.records)

    @cached_property
    def ceilings(self) -> CeilingsRecord | None:
        return ceilings_record(self.records)

    @property
    def environment(self) -> Environment:
        return self.records[-1].environment

    @cached_property
    def gpu(self) -> Gpu | None:
        """The card's datasheet, where configs/gpus has one."""
        return datasheet(self.environment.gpu)

    @property
    def fits(self) -> list[Fit]:
        return list(self.calibration.fits.values()) if self.calibration else []

    @property
    def fit(self) -> Fit | None:
        """Of the headline's recipe."""
        return self.calibration.fit_for(None) if self.calibration else None

    @property
    def reference(self) -> Reference | None:
        return self.calibration.reference if self.calibration else None

    @property
    def reference_missing(self) -> str | None:
        return self.calibration.reference_missing if self.calibration else "not calibrated"

    @property
    def known_suite(self) -> bool:
        """A preset's name; else the directory's suite.json says what was run."""
        return self.suite.name in names("suites")

    @property
    def command(self) -> str:
        """How to measure this again."""
        return (
            f"ldt-bench run {self.suite.name if self.known_suite else './suite.json'} --device"
            f" {self.environment.device}"
        )

    @property
    def citation(self) -> str:
        """How to cite a figure of it: version, card and date."""
        environment, day = self.environment, self.records[-1].started_utc[:10]
        return (
            f"ldt-bench {version()}, code {environment.code_version}, {environment.device_name},"
            f" PyTorch {environment.torch}, {day}"
        )

    @cached_property
    def whole_videos(self) -> list[WholeVideo]:
        """In the order they were measured."""
        return [video for video in map(_whole_video, self.points) if video is not None]

    @property
    def mixed(self) -> list[str]:
        """Differences of the records' environments from the last one's: none, unless a run was
        resumed elsewhere."""
        cards = cards_in(r.environment for r in self.records)
        return [
            *dict.fromkeys(
                d for r in self.records for d in r.environment.differences(self.environment)
            ),
            *([cards] if cards else []),
        ]

    @cached_property
    def ablations(self) -> list[Ablation]:
        """Recipes beside their baseline, where the records have one."""
        return ablations(self.points, price_of(self.gpu, None))

    @cached_property
    def claims(self) -> dict[str, Any]:
        """The document of `ldt-bench claims` without the tables of published latencies, which take
        many counts.

        This calibration judges the claims about this very card; counts and what others published
        judge the others."""
        evidence = evidence_from(self.calibration) if self.calibration is not None else None
        wanted = [
            name for name in names("claims") if load(Claim, name).check.kind != "latency_table"
        ]
        return claims_document(ledger(wanted, rows_from, evidence, published_shelf(published_rows)))

    @cached_property
    def swings(self) -> list[Swing]:
        """What moves the headline, the most first; none without a headline."""
        if self.headline is None:
            return []
        try:
            point = headline_point(self.suite)
            stages = measured_stages(point, self.points)
            if stages is not None:
                return headline_swings(point.workload, stages, "measured: interval of the medians")
            assert self.calibration is not None
            predicted = estimate(point, self.calibration)
        except UserError:  # a headline of an older version's presets
            return []
        said = f"{predicted.provenance}, 90 %"
        return headline_swings(point.workload, predicted.stages, said)

    def carried(self, fit: Fit) -> dict[str, float]:
        """Parameter of a fit -> the share that it scales of the seconds of the headline's stages,
        or where they are none of the fit's, of all its points' stages."""
        own = [r for r in self.points if r.outcome in MEASURED and r.recipe in fit.recipes]
        h = self.headline
        top = [r for r in own if h and (r.model, r.workload, r.recipe) == _named(h)]
        works = [
            Work.of(record.counts[stage]) * _calls(record).get(stage, 1)
            for record in top or own
            for stage in record.timings
            if feeds_fit(stage) and stage in record.counts
        ]
        theta = {name: p.value for name, p in fit.parameters.items()}
        return share_by_parameter(works, theta, fit.device) if works else {}

    @property
    def no_claims(self) -> str:
        """Why no claim is judged here."""
        if self.environment.gpu == "cpu":
            return "a CPU judges nothing that is said of a GPU"
        return "not calibrated"

    @property
    def judges_claims(self) -> bool:
        return self.environment.gpu != "cpu" and self.calibration is not None

    @property
    def unsteady(self) -> str | None:
        """Why the headline is to be doubted; None where the machine was steady."""
        return unsteady_words(self.records)

    @cached_property
    def sentinel(self) -> tuple[float, float, int] | None:
        return sentinel_spread(self.records)


def read_result(directory: Path) -> Result:
    """Raises UserError where the records or the calibration cannot be read; a result may have no
    calibration."""
    records, suite = read_records(directory), read_suite(directory)
    calibration = read_calibration(directory) if (directory / CALIBRATION).is_file() else None
    headline, missing = headline_of(directory, calibration)
    bars = waterfall(Assumptions(), calibration.reference if calibration else None)
    return Result(
        directory=directory,
        suite=suite,
        records=records,
        calibration=calibration,
        headline=headline,
        headline_missing=missing,
        bars=bars,
    )


def sentinel_spread(records: list[PointRecord | CeilingsRecord]) -> tuple[float, float, int] | None:
    """Median seconds of the sentinel product, its largest departure from that as a share, readings;
    None without any."""
    readings = [s for r in records if r.sentinel for s in (r.sentinel.before_s, r.sentinel.after_s)]
    if not readings:
        return None
    middle = median(readings)
    return middle, max(abs(s / middle - 1) for s in readings), len(readings)


def _named(headline: Headline) -> tuple[str, str, str]:
    return headline.model, headline.workload, headline.recipe


def _calls(record: PointRecord) -> dict[str, int]:
    """Of each stage for one batch of videos; none of a record of which no point can be made any
    more."""
    try:
        return calls_per_video(Point.model_validate(record.point).workload, record.counts)
    except (ValueError, UserError):
        return {}


def _whole_video(record: PointRecord) -> WholeVideo | None:
    if record.outcome not in MEASURED:
        return None
    try:
        point = Point.model_validate(record.point)
        workload = point.workload
        calls = calls_per_video(workload, record.counts)
    except (ValueError, UserError):  # a record of which no point can be made any more
        return None
    total = video_seconds(calls, record.timings)
    if total is None:
        return None
    return WholeVideo(
        record=record,
        seconds={s: n * record.timings[s].median_s for s, n in calls.items()},
        total=total,
        video_s=workload.video_s,
        minutes=minutes_from(workload, total.scaled(point.recipe.cards_of_one_sample)),
        joules=video_joules(calls, record.joules),
    )


SHAKY = 0.15
"""Departure of one fixed product from its median from which on a machine was not steady."""


def unsteady_words(records: list[PointRecord | CeilingsRecord]) -> str | None:
    """A line to stand beside the headline; None where the machine was steady."""
    return "; ".join(filter(None, (_sentinel_words(records), _stall_words(records)))) or None


def _sentinel_words(records: list[PointRecord | CeilingsRecord]) -> str | None:
    spread = sentinel_spread(records)
    if spread is None or spread[1] < SHAKY:
        return None
    return (
        f"the machine was not steady: one fixed matrix product was off by up to {spread[1]:.0%} of"
        " its usual time; measure again when it is idle before believing these figures"
    )


def _stall_words(records: list[PointRecord | CeilingsRecord]) -> str | None:
    found = [
        (sample, timing.median_s, f"{record.label} {stage}")
        for record in records
        for stage, timing in record.timed
        for sample in stalls(timing)
    ]
    if not found:
        return None
    longest, middle, where = max(found)
    samples = "1 sample stalled" if len(found) == 1 else f"{len(found)} samples stalled"
    return (
        f"{samples}, for {seconds(longest)} in {where}, whose median is {seconds(middle)}:"
        " something stopped the process or the machine; the medians leave that out"
    )
