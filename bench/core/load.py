"""From a name or a path to a validated spec.  Every mistake becomes one line: value, what is
accepted, nearest match."""

import dataclasses
import re
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from bench.core.errors import EnvironmentFault, UserError, brief, nearest
from bench.core.read_yaml import MAX_CHARACTERS, YamlError, read_yaml
from bench.core.specs.base import Spec
from bench.core.specs.claim import CHECKS, Claim, Part
from bench.core.specs.gpu import Gpu
from bench.core.specs.model import DIFFUSION_STAGES, TOKEN_STAGES, Model, needs_condition
from bench.core.specs.point import Point, check
from bench.core.specs.recipe import Recipe
from bench.core.specs.suite import Suite
from bench.core.specs.workload import Workload
from models.ar.spec import AutoregressiveConfig
from models.spec import DiffusersDenoiser, DiffusersVAE, DiTConfig, TextEncoderConfig, VAEConfig

KINDS: dict[str, type[Spec]] = {
    "models": Model,
    "workloads": Workload,
    "recipes": Recipe,
    "gpus": Gpu,
    "suites": Suite,
    "claims": Claim,
}
PARTS = ("denoiser", "vae", "text_encoders")
PART_CLASSES = (
    DiTConfig,
    DiffusersDenoiser,
    VAEConfig,
    DiffusersVAE,
    TextEncoderConfig,
    AutoregressiveConfig,
)
SPECS: dict[str, type[Spec]] = {"model": Model, "workload": Workload, "recipe": Recipe}
UNION_TAGS = (
    "own",
    "diffusers",
    "autoregressive",
    *CHECKS,
)  # of parts and checks; no part of a path the user wrote
MAX_EXTENDS = 20
S = TypeVar("S", bound=Spec)


def names(kind: str) -> list[str]:
    """Presets of a kind, sorted naturally (dit-s-2 before dit-s-10)."""
    if kind not in KINDS:
        raise UserError(
            f"unknown kind {brief(kind)}: one of {', '.join(KINDS)}{nearest(kind, KINDS)}"
        )
    folder = resources.files("configs") / kind
    stems = [f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")]
    return sorted(
        stems, key=lambda s: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", s)]
    )


def load(spec: type[S], name_or_path: str, overrides: dict[str, Any] | None = None) -> S:
    """Read configs/<kind>/<name>.yaml or a user's own YAML, set `overrides` (dotted path -> value)
    and validate.

    Raises UserError, with one line, for an unknown name, malformed YAML, unknown keys and
    impossible values."""
    kind = next(k for k, s in KINDS.items() if s is spec)
    data, name = _read(kind, name_or_path, Path(), ())
    optional = {key: f.default for key, f in spec.model_fields.items() if not f.is_required()}
    data = {**optional, **data}  # so that an override finds them
    for path, value in (overrides or {}).items():
        _set(data, path, value, f"{kind[:-1]} {name}")
    if overrides:
        name += (
            "[" + ",".join(f"{p.removeprefix('denoiser.')}={v}" for p, v in overrides.items()) + "]"
        )
        name = name if len(name) <= 200 else name[:196] + "...]"
    try:
        return spec.model_validate({**data, "name": name})
    except ValidationError as error:
        raise UserError(f"{kind[:-1]} {name}: {_one_line(error, data)}") from None


def load_point(
    model: str,
    workload: str,
    recipe: str,
    overrides: dict[str, Any] | None = None,
    stages: tuple[str, ...] | None = None,
) -> Point:
    """Load the three parts, and check that the model can take the workload.  stages: what
    generates, by default.

    `overrides` maps model.X, workload.X, recipe.X to values; denoiser.X, vae.X and
    text_encoders.0.X mean the model's, and a bare name the denoiser's.  Raises UserError."""
    by_part: dict[str, dict[str, Any]] = {"model": {}, "workload": {}, "recipe": {}}
    for path, value in (overrides or {}).items():
        head, _, rest = path.partition(".")
        if head in PARTS:
            by_part["model"][path] = value
        elif head in by_part and not rest:
            raise UserError(
                f"--set {path}: {path} is not one value; set a field of it: "
                f"{', '.join(f'{path}.{f}' for f in SPECS[path].model_fields if f != 'name')}"
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
    if stages is None:
        stages = TOKEN_STAGES if named.autoregressive else DIFFUSION_STAGES[:1]
    try:
        built, asked = executed.applied(named, load(Workload, workload, by_part["workload"]))
        if "trajectory" in stages:
            executed.sampler_config(asked.steps)
    except ValidationError as error:
        raise UserError(
            f"recipe {executed.name} on model {named.name}: {_one_line(error, named.model_dump())}"
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


def points_together(suite: Suite) -> set[str]:
    """Fingerprints of the points that the suite wants measured in turns."""
    return {
        point.fingerprint
        for entry in suite.points
        if entry.together
        for point in suite_points(suite.model_copy(update={"points": (entry,)}))
    }


def baselines(suite: Suite) -> dict[str, Point]:
    """Fingerprint of a point -> what it is measured in turns with and held against; the baseline
    itself has none."""
    found: dict[str, Point] = {}
    for entry in suite.points:
        if entry.baseline is None:
            continue
        for model in entry.model:
            for workload in entry.workload:
                base = load_point(model, workload, entry.baseline, dict(entry.set), entry.stages)
                for recipe in entry.recipe:
                    point = load_point(model, workload, recipe, dict(entry.set), entry.stages)
                    if point.subject != base.subject:
                        found.setdefault(point.fingerprint, base)
    return found


def suite_points(suite: Suite) -> list[Point]:
    """The suite's points in order, each once.  Raises UserError naming the entry that cannot be
    run."""
    points: dict[str, Point] = {}
    for index, entry in enumerate(suite.points):
        for model in entry.model:
            for workload in entry.workload:
                for recipe in entry.recipe:
                    try:
                        point = load_point(model, workload, recipe, dict(entry.set), entry.stages)
                    except UserError as error:
                        raise UserError(
                            f"suite {suite.name}, points.{index} ({model}, {workload}, {recipe}): "
                            f"{error}"
                        ) from None
                    points.setdefault(point.fingerprint, point)
    subjects: dict[str, str] = {}
    for point in points.values():
        if subjects.setdefault(point.label, point.subject) != point.subject:
            raise UserError(
                f"suite {suite.name}: two different points are called {point.label}; rename your"
                " YAML"
            )
    return list(points.values())


def headline_point(suite: Suite) -> Point:
    """Raises UserError naming the suite."""
    try:
        return load_point(suite.headline.model, suite.headline.workload, suite.headline.recipe)
    except UserError as error:
        raise UserError(f"suite {suite.name}, headline: {error}") from None


def parse_overrides(assignments: list[str]) -> dict[str, Any]:
    """['width=1024'] -> {'width': 1024}; values are YAML.  Raises UserError."""
    overrides = {}
    for text in assignments:
        path, equals, value = text.partition("=")
        if not equals or not path.strip():
            raise UserError(
                f"--set {brief(text)}: write PATH=VALUE, for example width=1024 or"
                " workload.frames=17"
            )
        try:
            overrides[path.strip()] = read_yaml(value)
        except YamlError as error:
            raise UserError(
                f"--set {path.strip()}: {brief(value)} is not a YAML value: {error}"
            ) from None
    return overrides


def _read(
    kind: str, name_or_path: str, folder: Path, seen: tuple[str, ...]
) -> tuple[dict[str, Any], str]:
    """The merged mapping and the name.  `extends: NAME` starts from another file of the kind; a
    path that stands in a file is taken from that file's folder."""
    is_path = name_or_path.endswith((".yaml", ".yml")) or "/" in name_or_path
    what = f"{kind[:-1]} {name_or_path}"
    if is_path and "\0" in name_or_path:
        raise UserError(f"{what}: no file has such a name")
    if not is_path and name_or_path not in names(kind):
        raise UserError(
            f"unknown {kind[:-1]} {brief(name_or_path)}{nearest(name_or_path, names(kind))} "
            f"(`ldt-bench list {kind}` shows all; a path to a YAML file is taken too)"
        )
    file = (
        folder / name_or_path
        if is_path
        else resources.files("configs") / kind / f"{name_or_path}.yaml"
    )
    if str(file) in seen or len(seen) == MAX_EXTENDS:
        raise UserError(
            f"{what}: extends itself, through {' -> '.join((*seen, str(file)))}"
            if str(file) in seen
            else f"{what}: extends more than {MAX_EXTENDS} files, one after another"
        )
    try:
        with file.open(encoding="utf-8") as opened:
            data = read_yaml(opened.read(MAX_CHARACTERS + 1))
    except YamlError as error:
        raise UserError(f"{what}: {error}") from None
    except PermissionError:
        raise EnvironmentFault(f"{what}: cannot be read: permission denied") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{what}: cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from None
    if not isinstance(data, dict):
        raise UserError(f"{what}: a mapping of keys is expected, not {type(data).__name__}")
    base: dict[str, Any] = {}
    if "extends" in data:
        parent = data.pop("extends")
        if not isinstance(parent, str):
            raise UserError(f"{what}: extends: a name is expected, not {brief(parent)}")
        try:
            base, _ = _read(
                kind, parent, Path(str(file)).parent if is_path else Path(), (*seen, str(file))
            )
        except UserError as error:
            raise UserError(f"{what}: extends: {error}") from None
    merged = _merge(base, data)
    merged.pop("name", None)
    return merged, Path(name_or_path).stem if is_path else name_or_path


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for key, value in over.items():
        out[key] = (
            _merge(out[key], value)
            if isinstance(value, dict) and isinstance(out.get(key), dict)
            else value
        )
    return out


def _set(data: dict[str, Any], path: str, value: Any, what: str) -> None:
    *parents, leaf = path.split(".")
    part: Any = data
    for key in parents:
        if isinstance(part, list) and key.isdigit() and int(key) < len(part):
            part = part[int(key)]
        elif isinstance(part, dict) and isinstance(part.get(key), (dict, list)):
            part = part[key]
        else:
            near = nearest(key, part) if isinstance(part, dict) else ""
            raise UserError(f"{what}: --set {path}: no part {brief(key)}{near}")
    arguments = parents[-1:] == [
        "config"
    ]  # of a public class, which knows more than its preset says
    if not isinstance(part, dict) or (leaf not in part and not arguments):
        fields = list(part) if isinstance(part, dict) else []
        raise UserError(
            f"{what}: --set {path}: no field {brief(leaf)}{_nearest_field(leaf, fields)} "
            f"(fields: {', '.join(fields)})"
        )
    part[leaf] = value


def _nearest_field(leaf: str, fields: Iterable[str]) -> str:
    """The nearest field, one of the same name elsewhere before one that merely looks alike."""
    elsewhere = {
        name: f"{part}.{name}"
        for part, spec in SPECS.items()
        for name in spec.model_fields
        if name not in ("name", *PARTS)
    }
    for part, cls in (
        ("text_encoders.0", TextEncoderConfig),
        ("vae", DiffusersVAE),
        ("vae", VAEConfig),
        ("denoiser", AutoregressiveConfig),
        ("denoiser", DiffusersDenoiser),
        ("denoiser", DiTConfig),
    ):
        elsewhere |= {f.name: f"{part}.{f.name}" for f in dataclasses.fields(cls)}
    elsewhere |= {
        name: f"workload.{name}"
        for name in Workload.model_fields
        if name not in ("name", "description", "width")
    }
    if leaf in elsewhere:
        return f"; did you mean {elsewhere[leaf]}?"
    near = nearest(leaf, fields)
    if near:
        return near
    near = nearest(leaf, elsewhere)
    return (
        near
        and f"; did you mean {elsewhere[near.removeprefix('; did you mean ').removesuffix('?')]}?"
    )


def _one_line(error: ValidationError, data: dict[str, Any]) -> str:
    """The first problem of a validation, in our words; how many more there are."""
    first = error.errors()[0]
    loc = [part for i, part in enumerate(first["loc"]) if not (i == 1 and part in UNION_TAGS)]
    where = ".".join(str(part) for part in loc)
    key = str(first["loc"][-1]) if first["loc"] else ""
    given = brief(first["input"])
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        text = f"{where}: unknown key{nearest(key, _all_fields())}"
    elif first["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
        text = f"{where}: missing"
    elif first["type"] in ("union_tag_invalid", "union_tag_not_found"):
        tag = first["ctx"].get("tag")
        text = f"{where}.kind: " + (
            "missing"
            if tag is None
            else f"{brief(tag)} is not one of {', '.join(CHECKS)}" + nearest(str(tag), CHECKS)
        )
    elif first["type"] == "value_error":
        text = f"{where}: {first['ctx']['error']}" if where else str(first["ctx"]["error"])
    elif first["type"] == "literal_error":
        accepted = first["ctx"]["expected"]
        words = re.findall(r"[\w-]+", accepted)
        text = f"{where}: {given} is not one of {accepted}{nearest(str(first['input']), words)}"
    else:
        text = f"{where}: {given}: {first['msg'][0].lower()}{first['msg'][1:]}"
    more = error.error_count() - 1
    return text + (f" (and {more} more)" if more else "")


def _all_fields() -> list[str]:
    fields: list[str] = []
    for cls in (*KINDS.values(), *Part.__subclasses__(), *PART_CLASSES):
        fields += (
            cls.model_fields
            if issubclass(cls, BaseModel)
            else [f.name for f in dataclasses.fields(cls)]
        )
    return fields


def datasheet(gpu: str) -> Gpu | None:
    """The card's datasheet; None where none is known."""
    return load(Gpu, gpu) if gpu in names("gpus") else None
