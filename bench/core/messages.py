"""What is wrong with a spec, in one line and in the user's words: the field, the value, what is
accepted and the nearest match."""

import dataclasses
import re
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ValidationError

from bench.core.errors import brief, closest, did_you_mean, nearest
from bench.core.presets import KINDS
from bench.core.specs.base import Spec
from bench.core.specs.claim import CHECKS, Part
from bench.core.specs.model import Model
from bench.core.specs.recipe import Recipe
from bench.core.specs.workload import Workload
from models.ar.spec import AutoregressiveConfig
from models.parallel.spec import Parallel
from models.spec import (
    DiffusersDenoiser,
    DiffusersVAE,
    DiTConfig,
    PythonDenoiser,
    PythonTextEncoder,
    PythonVAE,
    TextEncoderConfig,
    VAEConfig,
)

PARTS = ("denoiser", "vae", "text_encoders")
PART_CLASSES = (
    # from the least to the most likely to be meant by a bare field name
    ("text_encoders.0", PythonTextEncoder),
    ("vae", PythonVAE),
    ("denoiser", PythonDenoiser),
    ("text_encoders.0", TextEncoderConfig),
    ("vae", DiffusersVAE),
    ("vae", VAEConfig),
    ("denoiser", AutoregressiveConfig),
    ("denoiser", DiffusersDenoiser),
    ("denoiser", DiTConfig),
)
SPECS: dict[str, type[Spec]] = {"model": Model, "workload": Workload, "recipe": Recipe}
# Tags of parts and of checks: pydantic puts them into its paths, a user never wrote them.
UNION_TAGS = ("own", "diffusers", "python", "autoregressive", *CHECKS)


def first_problem(error: ValidationError) -> str:
    """The first problem of a validation, and how many more there are."""
    problem = error.errors()[0]
    text = _described(problem)
    more = error.error_count() - 1
    return text + (f" (and {more} more)" if more else "")


def _described(problem: Any) -> str:
    path = list(problem["loc"])
    tag_at = 2 if len(path) > 1 and isinstance(path[1], int) else 1  # of one of several parts
    if path[tag_at : tag_at + 1] and path[tag_at] in UNION_TAGS:
        del path[tag_at]
    where = ".".join(str(part) for part in path)
    given = brief(problem["input"])
    match problem["type"]:
        case "extra_forbidden" | "unexpected_keyword_argument":
            return f"{where}: unknown key{nearest(str(problem['loc'][-1]), _all_fields())}"
        case "missing" | "missing_argument" | "missing_keyword_only_argument":
            return f"{where}: missing"
        case "union_tag_invalid" | "union_tag_not_found":
            tag = problem["ctx"].get("tag")
            if tag is None:
                return f"{where}.kind: missing"
            accepted = ", ".join(CHECKS)
            return f"{where}.kind: {brief(tag)} is not one of {accepted}{nearest(str(tag), CHECKS)}"
        case "value_error":
            said = str(problem["ctx"]["error"])
            return f"{where}: {said}" if where else said
        case "literal_error":
            accepted = problem["ctx"]["expected"]
            near = nearest(str(problem["input"]), re.findall(r"[\w-]+", accepted))
            return f"{where}: {given} is not one of {accepted}{near}"
    return f"{where}: {given}: {problem['msg'][0].lower()}{problem['msg'][1:]}"


def nearest_field(leaf: str, fields: Iterable[str]) -> str:
    """The field that is meant: one of the same name in another part comes before one that merely
    looks alike."""
    elsewhere = _fields_by_name()
    if leaf in elsewhere:
        return did_you_mean([elsewhere[leaf]])
    here = nearest(leaf, fields)
    return here or did_you_mean(elsewhere[name] for name in closest(leaf, elsewhere))


def _fields_by_name() -> dict[str, str]:
    """Field name -> its path, as --set takes it."""
    found = {
        name: f"{part}.{name}"
        for part, spec in SPECS.items()
        for name in spec.model_fields
        if name not in ("name", *PARTS)
    }
    for part, cls in PART_CLASSES:
        found |= {field.name: f"{part}.{field.name}" for field in dataclasses.fields(cls)}
    others = ("name", "description", "width")
    workload = {name: f"workload.{name}" for name in Workload.model_fields if name not in others}
    return found | workload


def _all_fields() -> list[str]:
    fields: list[str] = []
    parts = (*Part.__subclasses__(), Parallel, *(cls for _, cls in PART_CLASSES))
    for cls in (*KINDS.values(), *parts):
        is_model = issubclass(cls, BaseModel)
        fields += cls.model_fields if is_model else [f.name for f in dataclasses.fields(cls)]
    return fields
