"""What a suite asks to be measured, in order.  No torch."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

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
    ranks: int = 1
    """Of ceilings: that measure them together."""
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
    if not suite.ceilings:
        return jobs
    return [ceilings_job(p.point.recipe for p in points), *_with_group_ceilings(jobs)]


def _with_group_ceilings(jobs: list[Job]) -> Iterator[Job]:
    """Before the first point of so many ranks, what these reach together."""
    meshes = [job.point.recipe for job in jobs if job.point.recipe.on_several_ranks]
    known = set()
    for job in jobs:
        mesh = job.point.recipe.parallel
        if mesh is not None and mesh.ranks > 1 and mesh.ranks not in known:
            known.add(mesh.ranks)
            alike = [recipe for recipe in meshes if recipe.parallel.ranks == mesh.ranks]
            yield ceilings_job(alike, mesh.ranks)
        yield job


def most_ranks(suite: Suite) -> int:
    """GPUs that the suite's largest mesh needs, so that a machine has as many."""
    meshes = [p.point.recipe.parallel for p in expand(suite) if p.point.recipe.parallel]
    return max((mesh.ranks for mesh in meshes), default=1)


def ceilings_job(recipes: Iterable[Recipe], ranks: int = 1) -> Job:
    """The ceilings that these recipes need."""
    what: dict[str, Any] = {"ceilings": recipe_pairs(recipes)}
    if ranks == 1:
        return Job(fingerprint(what), "ceilings", None)
    return Job(
        fingerprint(what | {"ranks": ranks}), f"ceilings of {ranks} ranks", None, ranks=ranks
    )


def recipe_pairs(recipes: Iterable[Recipe]) -> list[tuple[str, str]]:
    """(dtype, attention backend) of each, without repeats."""
    return list(dict.fromkeys((recipe.dtype, recipe.attention) for recipe in recipes))


def next_group(todo: list[Job]) -> list[Job]:
    """The first job, and where it may be measured in turns those after it that may be too."""
    return list(itertools.takewhile(lambda job: job.together, todo)) or todo[:1]
