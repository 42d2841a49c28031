"""From a name or a path to a validated spec, and from a suite to its points.  Every mistake becomes
one line: the value, what is accepted and the nearest match."""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from bench.core.errors import UserError, brief, nearest
from bench.core.messages import PARTS, SPECS, first_problem, nearest_field
from bench.core.presets import KINDS, full_name, is_path, names, open_recipe, read_preset
from bench.core.read_yaml import YamlError, read_yaml
from bench.core.specs.base import Spec
from bench.core.specs.gpu import Gpu
from bench.core.specs.model import DIFFUSION_STAGES, TOKEN_STAGES, Model, needs_condition
from bench.core.specs.point import Point, check
from bench.core.specs.recipe import Recipe
from bench.core.specs.suite import Suite, SuitePoints
from bench.core.specs.workload import Workload
from bench.core.suite_names import with_full_names
from bench.core.user.code import give_leave_to, is_named, name_yaml, take_code
from models.parallel.spec import Parallel, every_mesh

S = TypeVar("S", bound=Spec)


def load(spec: type[S], name_or_path: str, overrides: dict[str, Any] | None = None) -> S:
    """Read configs/<kind>/<name>.yaml or a user's own YAML, set `overrides` (dotted path -> value)
    and validate.  A recipe's dtype and a suite's recipes become part of their names.

    Raises UserError, with one line, for an unknown name, malformed YAML, unknown keys and
    impossible values."""
    kind = next(k for k, s in KINDS.items() if s is spec)
    data = read_preset(kind, name_or_path)
    name = Path(name_or_path).stem if is_path(name_or_path) else name_or_path
    optional = {key: f.default for key, f in spec.model_fields.items() if not f.is_required()}
    data = {**optional, **data}  # so that an override finds them
    overrides = overrides or {}
    for path, value in overrides.items():
        _set(data, path, value, f"{kind[:-1]} {name}")
    folders: list[str] = []
    if spec is Model:
        try:
            folders = take_code(data)
        except UserError as error:
            raise UserError(f"model {name}: {error}") from None
    try:
        loaded = spec.model_validate({**data, "name": name})
    except ValidationError as error:
        raise UserError(
            f"{kind[:-1]} {_overridden(name, overrides)}: {first_problem(error)}"
        ) from None
    if isinstance(loaded, Suite):
        if is_path(name_or_path) and is_named(name_or_path):
            for model in filter(is_path, models_of(loaded)):
                name_yaml(model)
        return with_full_names(loaded)
    if isinstance(loaded, Model):
        give_leave_to(loaded, folders, name_or_path)
    stem = open_recipe(name_or_path) if isinstance(loaded, Recipe) else None
    if isinstance(loaded, Recipe) and stem is not None:
        name = full_name(stem, loaded.dtype)
        overrides = {path: value for path, value in overrides.items() if path != "dtype"}
    return loaded.model_copy(update={"name": _overridden(name, overrides)})


def models_of(suite: Suite) -> list[str]:
    """The models that a suite names."""
    of_points = [model for entry in suite.points for model in entry.model]
    return list(dict.fromkeys([*of_points, suite.headline.model]))


def _overridden(name: str, overrides: dict[str, Any]) -> str:
    """The name with what --set changed behind it, at most 200 characters."""
    if not overrides:
        return name
    changes = [
        f"{path.removeprefix('denoiser.')}={_in_words(value)}" for path, value in overrides.items()
    ]
    text = f"{name}[{','.join(changes)}]"
    return text if len(text) <= 200 else text[:196] + "...]"


def _in_words(value: Any) -> str:
    """{'ulysses': 2, 'cfg': 2} is "ulysses 2 x cfg 2"."""
    if not isinstance(value, dict):
        return str(value)
    return " x ".join(f"{name} {of}" for name, of in value.items())


def load_point(
    model: str,
    workload: str,
    recipe: str,
    overrides: dict[str, Any] | None = None,
    stages: tuple[str, ...] | None = None,
    weights: dict[str, str] | None = None,
) -> Point:
    """Load the three parts, and check that the model can take the workload.  stages: what
    generates, by default.  weights: SHA-256 of real ones by part (bench.core.user.weights).

    `overrides` maps model.X, workload.X, recipe.X to values; denoiser.X, vae.X and
    text_encoders.0.X mean the model's, and a bare name the denoiser's.  Raises UserError."""
    by_part: dict[str, dict[str, Any]] = {"model": {}, "workload": {}, "recipe": {}}
    for path, value in (overrides or {}).items():
        head, _, rest = path.partition(".")
        if head in PARTS:
            by_part["model"][path] = value
        elif head in by_part and not rest:
            raise UserError(
                f"--set {path}: {head} is not one value; set a field of it: "
                f"{', '.join(f'{head}.{f}' for f in SPECS[head].model_fields if f != 'name')}"
            )
        elif not rest:
            by_part["model"][f"denoiser.{path}"] = value
        elif head in by_part:
            by_part[head][rest] = value
        else:
            accepted = [*by_part, *PARTS]
            raise UserError(
                f"--set {path}: {brief(head)} is not one of"
                f" {', '.join(accepted)}{nearest(head, accepted)}"
            )
    executed = load(Recipe, recipe, by_part["recipe"])
    named = load(Model, model, by_part["model"])
    if weights:
        named = named.model_copy(update={"weights": weights})
    if stages is None:
        stages = TOKEN_STAGES if named.autoregressive else DIFFUSION_STAGES[:1]
    try:
        built, asked = executed.applied(named, load(Workload, workload, by_part["workload"]))
        if "trajectory" in stages:
            executed.sampler_config(asked.steps)
    except ValidationError as error:
        raise UserError(
            f"recipe {executed.name} on model {named.name}: {first_problem(error)}"
        ) from None
    except ValueError as error:
        raise UserError(f"recipe {executed.name}: {error}") from None
    point = Point(model=built, workload=asked, recipe=executed, stages=stages)
    check_point(point)
    return point


def check_point(point: Point) -> None:
    """Raises UserError where the model cannot take the workload, or lacks a stage's part."""
    try:
        check(point.model, point.workload, point.recipe)
    except ValueError as error:
        raise UserError(
            f"model {point.model.name}, workload {point.workload.name}: {error}"
        ) from None
    token_by_token = point.model.autoregressive
    wrong = [
        stage
        for stage in point.stages
        if stage in (DIFFUSION_STAGES if token_by_token else TOKEN_STAGES)
    ]
    if wrong:
        raise UserError(
            f"model {point.model.name} has no stage {wrong[0]}: it is "
            + (
                f"auto-regressive, which has {', '.join(TOKEN_STAGES)}"
                if token_by_token
                else f"a diffusion model, which has {', '.join(DIFFUSION_STAGES)}"
            )
        )
    if "text_encode" in point.stages and not point.model.text_encoders:
        raise UserError(f"model {point.model.name} has no text encoder, so no stage text_encode")
    if "condition_encode" in point.stages and not needs_condition(point.model, point.workload):
        raise UserError(
            f"workload {point.workload.name}: task {point.workload.task} encodes nothing, so there"
            " is no stage condition_encode"
        )


@dataclass(frozen=True)
class SuitePoint:
    """One point of a suite, and how it is measured."""

    point: Point
    together: bool
    """In turns with the points beside it that say so too."""
    baseline: Point | None
    """What it is measured in turns with, and its output held against."""


def expand(suite: Suite) -> list[SuitePoint]:
    """The suite's points in order, each once; where several entries hold one, `together` and the
    first baseline of any of them count.  Raises UserError naming the entry that cannot be run."""
    found: dict[str, SuitePoint] = {}
    for index, entry in enumerate(suite.points):
        for model in entry.model:
            for workload in entry.workload:
                for recipe, mesh in itertools.product(entry.recipe, _meshes(entry, suite.gpus)):
                    where = f"suite {suite.name}, points.{index} ({model}, {workload}, {recipe})"
                    weights = (suite.weights or {}).get(model)
                    new = _suite_point(entry, model, workload, recipe, mesh, weights, where)
                    key = new.point.fingerprint
                    old = found.get(key, new)
                    found[key] = SuitePoint(
                        old.point, old.together or new.together, old.baseline or new.baseline
                    )
    subjects: dict[str, str] = {}
    for point in (p.point for p in found.values()):
        if subjects.setdefault(point.label, point.subject) != point.subject:
            raise UserError(
                f"suite {suite.name}: two different points are called {point.label}; rename your"
                " YAML"
            )
    return list(found.values())


def _meshes(entry: SuitePoints, gpus: int) -> tuple[Parallel | None, ...]:
    """Those that an entry asks for; None: as the recipe says."""
    if entry.parallel == "all":
        return tuple(mesh for mesh in every_mesh(gpus) if mesh.data == 1)
    return entry.parallel or (None,)


def _suite_point(
    entry: SuitePoints,
    model: str,
    workload: str,
    recipe: str,
    mesh: Parallel | None,
    weights: dict[str, str] | None,
    where: str,
) -> SuitePoint:
    overrides, stages = dict(entry.set), entry.stages
    if mesh is not None and mesh.ranks > 1:
        overrides["recipe.parallel"] = mesh.model_dump(exclude_defaults=True)
    try:
        point = load_point(model, workload, recipe, overrides, stages, weights)
        base = None
        if entry.baseline is not None:
            base = load_point(model, workload, entry.baseline, overrides, stages, weights)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    if base is not None and base.subject == point.subject:
        base = None  # the baseline itself
    return SuitePoint(point, entry.together, base)


def suite_points(suite: Suite) -> list[Point]:
    """The suite's points in order, each once.  Raises UserError naming the entry that cannot be
    run."""
    return [expanded.point for expanded in expand(suite)]


def headline_point(suite: Suite) -> Point:
    """Raises UserError naming the suite."""
    try:
        named = suite.headline
        weights = (suite.weights or {}).get(named.model)
        return load_point(named.model, named.workload, named.recipe, weights=weights)
    except UserError as error:
        raise UserError(f"suite {suite.name}, headline: {error}") from None


def parse_overrides(
    assignments: list[str], example: str = "width=1024 or workload.frames=17"
) -> dict[str, Any]:
    """['width=1024'] -> {'width': 1024}; values are YAML.  Raises UserError, which gives the
    example."""
    overrides = {}
    for text in assignments:
        path, equals, value = text.partition("=")
        if not equals or not path.strip():
            raise UserError(f"--set {brief(text)}: write NAME=VALUE, for example {example}")
        try:
            overrides[path.strip()] = read_yaml(value)
        except YamlError as error:
            raise UserError(
                f"--set {path.strip()}: {brief(value)} is not a YAML value: {error}"
            ) from None
    return overrides


def _set(data: dict[str, Any], path: str, value: Any, what: str) -> None:
    *parents, leaf = path.split(".")
    part: Any = data
    absent = False
    for key in parents:
        if isinstance(part, list) and key.isdigit() and int(key) < len(part):
            part = part[int(key)]
        elif isinstance(part, dict) and isinstance(part.get(key), (dict, list)):
            part = part[key]
        elif isinstance(part, dict) and key in part and part[key] is None:
            part[key] = part = {}
            absent = True  # its type says which fields it has
        else:
            near = nearest(key, part) if isinstance(part, dict) else ""
            raise UserError(f"{what}: --set {path}: no part {brief(key)}{near}")
    # A public class takes more arguments than its preset says.
    arguments = absent or parents[-1:] == ["config"]
    if not isinstance(part, dict) or (leaf not in part and not arguments):
        fields = list(part) if isinstance(part, dict) else []
        near = nearest_field(leaf, fields)
        raise UserError(
            f"{what}: --set {path}: no field {brief(leaf)}{'' if f' {path}?' in near else near} "
            f"(fields: {', '.join(fields)})"
        )
    part[leaf] = value


def datasheet(gpu: str) -> Gpu | None:
    """The card's datasheet; None where none is known."""
    return load(Gpu, gpu) if gpu in names("gpus") else None
