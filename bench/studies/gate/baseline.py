"""The committed baseline of a gate: counts of named points."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from bench.core.errors import UserError, brief
from bench.core.load import load_point
from bench.core.presets import is_path
from bench.core.specs.point import Point
from bench.core.user.code import name_yaml
from bench.count.cache import PointCount, counted
from bench.results.base import Strict
from bench.results.store import disk_faults, first_problem, read_bytes, write_whole
from models.python.spec import python_parts

Count = Annotated[int, Field(ge=0)]
STAGES = ("forward", "denoise_step", "vae_decode", "vae_encode", "text_encode", "condition_encode")
QUANTITIES = (
    "linear_flops",
    "attention_flops",
    "conv_flops",
    "other_flops",
    "bytes_modelled_min",
    "bytes_modelled_max",
)


class BaselinePoint(Strict):
    """One point.  Provenance: counted."""

    model: str
    """A name in configs/models, or a YAML file, by its path from where `check` is run."""
    workload: str
    recipe: str
    params: dict[str, Count]
    """By part."""
    stages: dict[str, dict[str, Count]]
    """Stage -> quantity."""

    @property
    def label(self) -> str:
        return f"{self.model} {self.workload} {self.recipe}"

    def now(self) -> "BaselinePoint":
        """The same point, counted by this code and these files.  Raises UserError."""
        return counted_point(self.model, self.workload, self.recipe)


class Baseline(Strict):
    """A baseline file."""

    schema_version: Literal[1] = 1
    points: Annotated[list[BaselinePoint], Field(min_length=1)]


def _counted_anew(point: Point) -> PointCount:
    """What users' classes call may have been updated since a count was kept."""
    from bench.count.point import count_point

    count = count_point(point)
    return PointCount(stages=count.stages, params=count.params)


def counted_point(model: str, workload: str, recipe: str) -> BaselinePoint:
    """Counts of a point.  Raises UserError.  A baseline is the user's own list, as a suite is: the
    classes that its models name may be imported."""
    if is_path(model):
        name_yaml(model)
    point: Point = load_point(model, workload, recipe)
    count = counted(point) if not any(python_parts(point.model)) else _counted_anew(point)
    return BaselinePoint(
        model=model,
        workload=workload,
        recipe=recipe,
        params=count.params,
        stages={
            stage: {name: getattr(count.stages[stage], name) for name in QUANTITIES}
            for stage in STAGES
            if stage in count.stages
        },
    )


def parse_point(text: str, option: str = "--add") -> tuple[str, str, str]:
    """ "MODEL:WORKLOAD" or "MODEL:WORKLOAD:RECIPE".  Raises UserError."""
    parts = text.split(":")
    if len(parts) not in (2, 3) or not all(parts):
        raise UserError(
            f"{option} {brief(text)}: expected MODEL:WORKLOAD[:RECIPE], e.g. sora-3b:480p-81f"
        )
    model, workload, recipe = [*parts, "eager-bf16"][:3]
    return model, workload, recipe


def read_baseline(path: Path) -> Baseline:
    """Raises UserError for a file that is none, or is not there."""
    if path.is_dir():
        raise UserError(f"{path}: expected a baseline file, found a directory")
    if not path.is_file():
        raise UserError(f"{path}: no such baseline; --add MODEL:WORKLOAD writes one")
    try:
        return Baseline.model_validate_json(read_bytes(path))
    except ValidationError as error:
        raise UserError(f"{path}: not a baseline: {first_problem(error)}") from None


def write_baseline(path: Path, points: list[BaselinePoint]) -> Baseline:
    """Each point once, by its label, in order."""
    by_label = {point.label: point for point in points}
    baseline = Baseline(points=[by_label[label] for label in sorted(by_label)])
    with disk_faults(path, measured=False):
        write_whole(path, baseline.model_dump_json(indent=1) + "\n")
    return baseline
