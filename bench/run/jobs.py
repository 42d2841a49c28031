"""What a suite asks to be measured, in order.  No torch."""

import dataclasses
import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from bench.core.errors import UserError
from bench.core.load import expand, headline_point
from bench.core.specs.base import fingerprint
from bench.core.specs.point import Point
from bench.core.specs.recipe import Recipe
from bench.core.specs.suite import Suite


@dataclass(frozen=True)
class Job:
    """One line of records.jsonl to come."""

    fingerprint: str
    label: str
    point: Point | None
    """None for the ceilings."""
    together: bool = False
    """Measured in turns with the jobs beside it that are too."""
    baseline: Point | None = None
    """What the point is measured in turns with, and its output held against."""

    def alone(self) -> "Job":
        """The same, measured by itself."""
        return dataclasses.replace(self, together=False)


def suite_jobs(suite: Suite) -> list[Job]:
    """Ceilings first, then the points.  Raises UserError for an entry that cannot be run."""
    points = expand(suite)
    headline = headline_point(suite)
    if headline.recipe.name not in {p.point.recipe.name for p in points}:
        raise UserError(
            f"suite {suite.name}: headline.recipe {headline.recipe.name} is measured by none of its"
            " points"
        )
    jobs = [
        Job(
            p.point.fingerprint,
            p.point.label,
            p.point,
            together=p.together and p.baseline is None and not p.point.recipe.on_several_ranks,
            baseline=p.baseline,
        )
        for p in points
    ]
    return [ceilings_job(p.point.recipe for p in points), *jobs] if suite.ceilings else jobs


def ceilings_job(recipes: Iterable[Recipe]) -> Job:
    """The ceilings that these recipes need."""
    return Job(fingerprint({"ceilings": recipe_pairs(recipes)}), "ceilings", None)


def recipe_pairs(recipes: Iterable[Recipe]) -> list[tuple[str, str]]:
    """(dtype, attention backend) of each, without repeats."""
    return list(dict.fromkeys((recipe.dtype, recipe.attention) for recipe in recipes))


def next_group(todo: list[Job]) -> list[Job]:
    """The first job, and where it may be measured in turns those after it that may be too."""
    return list(itertools.takewhile(lambda job: job.together, todo)) or todo[:1]
