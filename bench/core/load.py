"""From a name or a path to a validated spec.  Every mistake becomes one line: value, what is accepted, nearest match."""

import dataclasses
import re
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from bench.core.errors import UserError, nearest
from bench.core.spec import Gpu, Model, Point, Recipe, Spec, Suite, Workload
from models.spec import DiffusersDenoiser, DiffusersVAE, DiTConfig, TextEncoderConfig, VAEConfig

KINDS: dict[str, type[Spec]] = {
    "models": Model, "workloads": Workload, "recipes": Recipe, "gpus": Gpu, "suites": Suite,
}
PARTS = ("denoiser", "vae", "text_encoders")
PART_CLASSES = (DiTConfig, DiffusersDenoiser, VAEConfig, DiffusersVAE, TextEncoderConfig)
UNION_TAGS = ("own", "diffusers")     # of the two kinds of denoiser and VAE; no part of a path the user wrote
S = TypeVar("S", bound=Spec)


def names(kind: str) -> list[str]:
    """Presets of a kind, sorted naturally (dit-s-2 before dit-s-10)."""
    if kind not in KINDS:
        raise UserError(f"unknown kind {kind!r}: one of {', '.join(KINDS)}{nearest(kind, KINDS)}")
    folder = resources.files("configs") / kind
    stems = [f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")]
    return sorted(stems, key=lambda s: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", s)])


def load(spec: type[S], name_or_path: str, overrides: dict[str, Any] | None = None) -> S:
    """Read configs/<kind>/<name>.yaml or a user's own YAML, set `overrides` (dotted path -> value) and validate.

    Raises UserError, with one line, for an unknown name, malformed YAML, unknown keys and impossible values."""
    kind = next(k for k, s in KINDS.items() if s is spec)
    data, name = _read(kind, name_or_path, ())
    for path, value in (overrides or {}).items():
        _set(data, path, value, f"{kind[:-1]} {name}")
    if overrides:
        name += "[" + ",".join(f"{p.removeprefix('denoiser.')}={v}" for p, v in overrides.items()) + "]"
    try:
        return spec.model_validate({**data, "name": name})
    except ValidationError as error:
        raise UserError(f"{kind[:-1]} {name}: {_one_line(error, data)}") from None


def load_point(model: str, workload: str, recipe: str, overrides: dict[str, Any] | None = None,
               stages: tuple[str, ...] = ("denoise_step",)) -> Point:
    """Load the three parts, and check that the model can take the workload.

    `overrides` maps model.X, workload.X, recipe.X to values; denoiser.X, vae.X and text_encoders.0.X mean the model's,
    and a bare name the denoiser's.  Raises UserError."""
    by_part: dict[str, dict[str, Any]] = {"model": {}, "workload": {}, "recipe": {}}
    for path, value in (overrides or {}).items():
        head, _, rest = path.partition(".")
        if not rest:
            by_part["model"][f"denoiser.{path}"] = value
        elif head in PARTS:
            by_part["model"][path] = value
        elif head in by_part:
            by_part[head][rest] = value
        else:
            accepted = [*by_part, *PARTS]
            raise UserError(f"--set {path}: {head!r} is not one of {', '.join(accepted)}{nearest(head, accepted)}")
    point = Point(
        model=load(Model, model, by_part["model"]), workload=load(Workload, workload, by_part["workload"]),
        recipe=load(Recipe, recipe, by_part["recipe"]), stages=stages,
    )
    check_point(point)
    return point


def check_point(point: Point) -> None:
    """Raises UserError where the model cannot take the workload, or lacks a stage's part."""
    try:
        point.model.tokens(point.workload)
    except ValueError as error:
        raise UserError(f"model {point.model.name}, workload {point.workload.name}: {error}") from None
    if "text_encode" in point.stages and not point.model.text_encoders:
        raise UserError(f"model {point.model.name} has no text encoder, so no stage text_encode")


def suite_points(suite: Suite) -> list[Point]:
    """The suite's points in order, each once.  Raises UserError naming the entry that cannot be run."""
    points: dict[str, Point] = {}
    for entry in suite.points:
        for model in entry.model:
            for workload in entry.workload:
                for recipe in entry.recipe:
                    point = load_point(model, workload, recipe, dict(entry.set), entry.stages)
                    points.setdefault(point.fingerprint, point)
    subjects: dict[str, str] = {}
    for point in points.values():
        if subjects.setdefault(point.label, point.subject) != point.subject:
            raise UserError(f"suite {suite.name}: two different points are called {point.label}; rename your YAML")
    return list(points.values())


def parse_overrides(assignments: list[str]) -> dict[str, Any]:
    """['width=1024'] -> {'width': 1024}; values are YAML.  Raises UserError."""
    overrides = {}
    for text in assignments:
        path, equals, value = text.partition("=")
        if not equals or not path.strip():
            raise UserError(f"--set {text!r}: write PATH=VALUE, for example width=1024 or workload.frames=17")
        try:
            overrides[path.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UserError(f"--set {text!r}: {value!r} is not a YAML value") from None
    return overrides


def _read(kind: str, name_or_path: str, seen: tuple[str, ...]) -> tuple[dict[str, Any], str]:
    """The merged mapping and the name.  `extends: NAME` starts from another file of the kind."""
    is_path = name_or_path.endswith((".yaml", ".yml")) or "/" in name_or_path
    what = f"{kind[:-1]} {name_or_path}"
    if name_or_path in seen:
        raise UserError(f"{what}: extends itself, through {' -> '.join((*seen, name_or_path))}")
    file = Path(name_or_path) if is_path else resources.files("configs") / kind / f"{name_or_path}.yaml"
    if not is_path and name_or_path not in names(kind):
        raise UserError(f"unknown {kind[:-1]} {name_or_path!r}{nearest(name_or_path, names(kind))} "
                        f"(`ldt-bench list {kind}` shows all; a path to a YAML file is taken too)")
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UserError(f"{what}: malformed YAML{where}: {getattr(error, 'problem', None) or error}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{what}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not isinstance(data, dict):
        raise UserError(f"{what}: a mapping of keys is expected, not {type(data).__name__}")
    base: dict[str, Any] = {}
    if "extends" in data:
        parent = data.pop("extends")
        if not isinstance(parent, str):
            raise UserError(f"{what}: extends: a name is expected, not {parent!r}")
        base, _ = _read(kind, parent, (*seen, name_or_path))
    merged = _merge(base, data)
    merged.pop("name", None)
    return merged, Path(name_or_path).stem if is_path else name_or_path


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for key, value in over.items():
        out[key] = _merge(out[key], value) if isinstance(value, dict) and isinstance(out.get(key), dict) else value
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
            raise UserError(f"{what}: --set {path}: no part {key!r}{nearest(key, part) if isinstance(part, dict) else ''}")
    if not isinstance(part, dict) or leaf not in part:
        fields = list(part) if isinstance(part, dict) else []
        raise UserError(f"{what}: --set {path}: no field {leaf!r}{nearest(leaf, fields)} (fields: {', '.join(fields)})")
    part[leaf] = value


def _one_line(error: ValidationError, data: dict[str, Any]) -> str:
    """The first problem of a validation, in our words; how many more there are."""
    first = error.errors()[0]
    loc = [part for i, part in enumerate(first["loc"]) if not (i == 1 and part in UNION_TAGS)]
    where = ".".join(str(part) for part in loc)
    key = str(first["loc"][-1]) if first["loc"] else ""
    given = repr(first["input"])
    given = given if len(given) <= 60 else given[:57] + "..."
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        text = f"{where}: unknown key{nearest(key, _all_fields())}"
    elif first["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
        text = f"{where}: missing"
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
    for cls in (*KINDS.values(), *PART_CLASSES):
        fields += cls.model_fields if issubclass(cls, BaseModel) else [f.name for f in dataclasses.fields(cls)]
    return fields
