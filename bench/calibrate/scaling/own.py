"""What a result's own ranks say of a mesh: its fit of one rank, its links, and how far its steps on
ranks were from what these give."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bench.calibrate.calibration import Fit
from bench.calibrate.cost.parameters import NAMES
from bench.calibrate.fitting.accuracy import Errors
from bench.calibrate.scaling.check import errors, measured_steps
from bench.calibrate.scaling.measured import Links, OneRank, step_on_ranks
from bench.calibrate.scaling.model import OneCard, Parts
from bench.core.specs.point import Point
from bench.count.cache import counted
from bench.results.records import CeilingsRecord, PointRecord
from bench.results.scaling import Message
from bench.results.store import group_ceilings, point_records
from models.parallel.spec import Parallel

STAGE = "denoise_step"


@dataclass(frozen=True)
class OwnRanks:
    """Of one result and one recipe.  Provenance: measured, fitted."""

    fitted: OneRank
    links: Mapping[int, Links]
    """By ranks."""
    factor: float
    """Measured over predicted seconds, the mean of the steps on ranks; 1 without any."""
    scatter: float
    """Of log seconds around that."""
    steps: int
    """Measured on ranks."""
    held_out: Errors | None

    def parts(self, one: OneCard, point: Point, parallel: Parallel) -> Parts:
        """Seconds of one video on a mesh.  Imports torch, to count a rank's share.

        Raises UserError for a mesh that the model cannot run on, ValueError where a collective was
        not measured."""
        from bench.count.parallel.point import count_rank

        recipe = point.recipe.model_copy(update={"parallel": parallel})
        rank = count_rank(point.model_copy(update={"recipe": recipe}))
        messages = [
            Message(**vars(sent.message), calls=sent.calls) for sent in (*rank.sent, *rank.weights)
        ]
        each = point.workload.steps / point.workload.batch
        step = step_on_ranks(
            counted(point).stages[STAGE],
            rank.step,
            messages,
            parallel,
            self.fitted,
            self.links[parallel.ranks],
            one.denoise_s / each,
        )
        return Parts(
            denoise_s=step.compute_s * each * self.factor,
            communication_s=step.communication_s * each * self.factor,
            serial_s=one.other_s + one.vae_s / parallel.vae,
        )


def own_ranks(fit: Fit, records: Sequence[PointRecord | CeilingsRecord]) -> OwnRanks | None:
    """None where no ranks were measured together."""
    groups = group_ceilings(list(records))
    if not groups:
        return None
    steps = measured_steps(point_records(list(records)))
    misses = np.array([step.log_miss for step in steps])
    theta = np.array([fit.parameters[name].value or np.nan for name in NAMES])
    return OwnRanks(
        fitted=OneRank(fit.device, theta, np.array(fit.draws), len(fit.stages)),
        links={ranks: Links(record) for ranks, record in groups.items()},
        factor=float(np.exp(misses.mean())) if len(misses) else 1.0,
        scatter=float(misses.std(ddof=1)) if len(misses) > 1 else 0.0,
        steps=len(steps),
        held_out=errors(steps)["held_out"] if steps else None,
    )
