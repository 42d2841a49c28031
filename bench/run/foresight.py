"""Predict a step on several ranks before it is measured, from the records of one rank so far."""

from dataclasses import dataclass, field

from bench.calibrate.fit import bootstrap, fit
from bench.calibrate.fit_pool import ceilings_for, observations_of
from bench.calibrate.fitting.accuracy import TooFewPoints
from bench.calibrate.pools import Pool, execution_of, models_of, pools
from bench.calibrate.scaling.measured import Links, OneRank, step_on_ranks
from bench.core.errors import UserError
from bench.core.specs.point import Point
from bench.measure.worker.process import JobFailed, Worker
from bench.measure.worker.protocol import CountPoint, CountRank
from bench.results.records import CeilingsRecord, PointRecord
from bench.results.scaling import StepOnRanks
from bench.results.store import (
    Store,
    ceilings_record,
    group_ceilings,
    on_one_card,
    point_records,
)
from bench.results.video import MEASURED
from bench.run.jobs import Job

STAGE = "denoise_step"
COUNT_TIMEOUT_S = 300.0


@dataclass
class Foresight:
    """The fits of one rank, each made once for as many records as there are."""

    fits: dict[tuple[str, int], OneRank] = field(default_factory=dict)
    """By the settings that decide the rates, and the number of records."""

    def __call__(
        self, job: Job, store: Store, worker: Worker
    ) -> tuple[StepOnRanks | None, str | None]:
        """A point's step and None, or None and why it cannot be predicted; of a point of one rank,
        or without a step, two None."""
        point = job.point
        if point is None or not point.recipe.on_several_ranks or STAGE not in point.stages:
            return None, None
        try:
            return self._step(point, store, worker), None
        except (TooFewPoints, UserError, ValueError, JobFailed) as error:
            return None, str(error)  # the point is measured all the same

    def _step(self, point: Point, store: Store, worker: Worker) -> StepOnRanks:
        """Raises TooFewPoints, UserError, ValueError, JobFailed with the reason."""
        now = worker.environment
        here = [r for r in store.records() if r.environment.digest() == now.digest()]
        ranks, ceilings = point.recipe.parallel.ranks, ceilings_record(here)
        group = group_ceilings(here).get(ranks)
        if ceilings is None or group is None:
            raise UserError(f"no ceilings of one rank and of {ranks} ranks before it")
        alone = point.on_one_rank
        points = [r for r in on_one_card(point_records(here)) if r.outcome in MEASURED]
        fitted = self._fitted(_pool_of(alone, points, now.device), ceilings)
        counted = worker.run(CountRank(point=point), COUNT_TIMEOUT_S)
        whole = worker.run(CountPoint(point=alone), COUNT_TIMEOUT_S)
        return step_on_ranks(
            whole.counts[STAGE],
            counted.step,
            counted.messages,
            point.recipe.parallel,
            fitted,
            Links(group),
            _measured(alone, points),
        )

    def _fitted(self, pool: Pool, ceilings: CeilingsRecord) -> OneRank:
        key = pool.key.model_dump_json(), len(pool.records)
        if key not in self.fits:
            rates = ceilings_for(ceilings, pool.key.dtype, pool.asked[0], pool.key.attention)
            observations = observations_of(pool.records)
            fitted = fit(observations, rates)
            draws = bootstrap(observations, fitted)
            self.fits[key] = OneRank(rates, fitted.theta, draws, len(observations))
        return self.fits[key]


def _pool_of(alone: Point, points: list[PointRecord], device: str) -> Pool:
    """The measured points whose operators run at the rates of this one.  Raises TooFewPoints."""
    recipe = alone.recipe
    for pool in pools(points):
        same = (
            pool.key.dtype == recipe.dtype,
            recipe.attention in pool.asked,
            pool.key.models == models_of(device, alone.model),
            pool.key.execution == execution_of(recipe.model_dump(mode="json")),
        )
        if all(same):
            return pool
    raise TooFewPoints("no point of this recipe was measured on one rank before it")


def _measured(alone: Point, points: list[PointRecord]) -> float | None:
    """Seconds of the very step on one rank, where it was measured."""
    for record in points:
        if STAGE in record.timings and Point.model_validate(record.point).subject == alone.subject:
            return record.timings[STAGE].median_s
    return None
