"""From a name or a path to the mapping that its YAML holds.  A recipe's file leaves its dtype open:
the name that records carry is the file's with the dtype, steps-4.yaml in float32 is steps-4-fp32.
"""

import functools
import os
import re
import warnings
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any, get_args

from bench.core.errors import EnvironmentFault, Renamed, UserError, brief, nearest
from bench.core.read_yaml import MAX_CHARACTERS, YamlError, read_yaml
from bench.core.specs.base import Spec
from bench.core.specs.claim import Claim
from bench.core.specs.demand import Demand
from bench.core.specs.gpu import Gpu
from bench.core.specs.model import KINDS as PART_KINDS
from bench.core.specs.model import Model
from bench.core.specs.recipe import Dtype, Recipe
from bench.core.specs.suite import Suite
from bench.core.specs.workload import Workload
from bench.core.user.code import note_folder

KINDS: dict[str, type[Spec]] = {
    "models": Model,
    "workloads": Workload,
    "recipes": Recipe,
    "gpus": Gpu,
    "suites": Suite,
    "claims": Claim,
    "demands": Demand,
}
DTYPES = get_args(Dtype)
MAX_EXTENDS = 20


def names(kind: str) -> list[str]:
    """Presets of a kind, sorted naturally (dit-s-2 before dit-s-10).  Raises UserError."""
    if kind not in KINDS:
        raise UserError(
            f"unknown kind {brief(kind)}: one of {', '.join(KINDS)}{nearest(kind, KINDS)}"
        )
    folder = Path(str(resources.files("configs"))) / kind
    return list(_stems(folder, folder.stat().st_mtime_ns))


@functools.cache
def _stems(folder: Path, changed_ns: int) -> tuple[str, ...]:
    """As `names`, read again when a file came or went: a forecast of all cards asks often."""
    stems = [f.stem for f in folder.iterdir() if f.suffix == ".yaml"]
    numbers_apart = re.compile(r"(\d+)")
    return tuple(
        sorted(stems, key=lambda s: [int(p) if p.isdigit() else p for p in numbers_apart.split(s)])
    )


def is_path(name_or_path: str) -> bool:
    """A user's own YAML, not the name of a preset?"""
    return name_or_path.endswith((".yaml", ".yml")) or "/" in name_or_path


def is_preset(kind: str, name: str) -> bool:
    """Can this name be loaded?  Of recipes the names that records carry can be, too."""
    return (recipe_file(name)[0] if kind == "recipes" else name) in names(kind)


def full_name(stem: str, dtype: str) -> str:
    """The name that records carry: eager-math in fp32 is eager-fp32-math, steps-4 is steps-4-fp32.
    A file whose own name says a dtype keeps its name."""
    words = stem.split("-")
    if not set(words).isdisjoint(DTYPES):
        return stem
    at = 1 if words[0] == "eager" else len(words)
    return "-".join([*words[:at], dtype, *words[at:]])


def recipe_file(name: str) -> tuple[str, str | None]:
    """A recipe's file, and the dtype where the name adds one: steps-4-fp32 -> steps-4, fp32.  What
    no file answers to stays as it is."""
    known = names("recipes")
    if name in known:
        return name, None
    for dtype in DTYPES:
        words = name.split("-")
        if dtype in words:
            words.remove(dtype)
            stem = "-".join(words)
            if stem in known and full_name(stem, dtype) == name:
                return stem, dtype
    return name, None


def open_recipe(name: str) -> str | None:
    """The file of a recipe whose name leaves the dtype open; None of files whose name says it, of
    a user's own and of unknown ones."""
    stem = recipe_file(name)[0]
    is_open = not is_path(name) and full_name(stem, "") != stem and stem in names("recipes")
    return stem if is_open else None


def old_name(recipe: str) -> str | None:
    """A note on a recipe that is named with its dtype, as all were once; None for other names."""
    stem, dtype = recipe_file(recipe)
    if dtype is None:
        return None
    return f"recipe {recipe} is {stem} with dtype {dtype} now (--set recipe.dtype={dtype})"


def read_preset(
    kind: str, name_or_path: str, folder: Path = Path(), seen: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The mapping of a YAML, merged with those that it extends.  `extends: NAME` starts from
    another file of the kind; a path that stands in a file is taken from that file's folder.

    Raises UserError and EnvironmentFault, with one line."""
    own = is_path(name_or_path)
    said = f"{kind[:-1]} {name_or_path if len(name_or_path) <= 300 else brief(name_or_path)}"
    stem, dtype = name_or_path, None
    if kind == "recipes" and not own:
        stem, dtype = recipe_file(name_or_path)
    known = names(kind)
    if not own and stem not in known:
        if kind == "recipes":
            known += [full_name(recipe, dtype) for recipe in known for dtype in DTYPES]
        raise UserError(
            f"unknown {kind[:-1]} {brief(name_or_path)}{nearest(name_or_path, known)} "
            f"(`ldt-bench list {kind}` shows all; a path to a YAML file is taken too)"
        )
    if not _names_a_file(name_or_path):
        raise UserError(f"{kind[:-1]} {brief(name_or_path)}: no file has such a name")
    file = folder / name_or_path if own else resources.files("configs") / kind / f"{stem}.yaml"
    if str(file) in seen:
        raise UserError(f"{said}: extends itself, through {' -> '.join((*seen, str(file)))}")
    if len(seen) == MAX_EXTENDS:
        raise UserError(f"{said}: extends more than {MAX_EXTENDS} files, one after another")
    data = _read_mapping(file, said)
    for note in filter(None, map(old_name, _recipes_in(data) if own else ())):
        warnings.warn(note, Renamed, stacklevel=2)
    base: dict[str, Any] = {}
    if "extends" in data:
        parent = data.pop("extends")
        if not isinstance(parent, str):
            raise UserError(f"{said}: extends: expected a name, not {brief(parent)}")
        beside = Path(str(file)).parent if own else Path()
        try:
            base = read_preset(kind, parent, beside, (*seen, str(file)))
        except UserError as error:
            raise UserError(f"{said}: extends: {error}") from None
    if kind == "models" and own:
        note_folder(data, Path(str(file)))
    merged = _merge(base, data)
    merged.pop("name", None)
    return merged if dtype is None else merged | {"dtype": dtype}


def _names_a_file(name: str) -> bool:
    """Could a file be called so?  Not with a NUL, nor half of a surrogate pair."""
    try:
        return b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        return False


def _read_mapping(file: Any, said: str) -> dict[str, Any]:
    try:
        with file.open(encoding="utf-8") as opened:
            data = read_yaml(opened.read(MAX_CHARACTERS + 1))
    except YamlError as error:
        raise UserError(f"{said}: {error}") from None
    except IsADirectoryError:
        raise UserError(f"{said}: expected a YAML file, found a directory") from None
    except PermissionError:
        raise EnvironmentFault(f"{said}: cannot be read: permission denied") from None
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{said}: cannot be read: {why}") from None
    if data is None:
        raise UserError(f"{said}: expected a mapping of keys, found an empty file")
    if not isinstance(data, dict):
        raise UserError(f"{said}: expected a mapping of keys, not {type(data).__name__}")
    return data


def _recipes_in(data: Any) -> Iterator[str]:
    """The recipes that a user's YAML names, in any of its parts."""
    if isinstance(data, list):
        for item in data:
            yield from _recipes_in(item)
    if isinstance(data, dict):
        for key, value in data.items():
            if key in ("recipe", "baseline", "extends"):
                named = value if isinstance(value, list) else [value]
                yield from (name for name in named if isinstance(name, str))
            else:
                yield from _recipes_in(value)


def _another_kind(base: dict[str, Any], over: dict[str, Any]) -> bool:
    """A public or a user's class in the place of a part of another kind: no field of that stays."""
    return any(field in over and field not in base for field, _, _ in PART_KINDS)


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = _merge(out[key], value) if both and not _another_kind(out[key], value) else value
    return out
