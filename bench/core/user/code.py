"""Models whose parts are a user's Python classes: what is noted when their YAML is loaded.

A class may be imported only where the user named its YAML, or a suite that lists it, on the command
line (`name_yaml`).  No torch, and nothing is imported here.
"""

import contextlib
from pathlib import Path
from typing import Any

from bench.core.errors import UserError
from bench.core.specs.model import Model
from models.python.imports import digest, give_leave
from models.python.spec import python_parts

_named: set[Path] = set()
FOLDER = "folder of its YAML"
"""A key that no YAML can need: where a part's classes lie, until the model is loaded."""


def name_yaml(path: str | Path) -> None:
    """The user named this file: the classes in it may be imported."""
    with contextlib.suppress(ValueError, OSError):  # no file can be called so: loading it says it
        _named.add(Path(path).resolve())


def is_named(path: str | Path) -> bool:
    """Did the user name this file?"""
    return Path(path).resolve() in _named


def note_folder(data: dict[str, Any], file: Path) -> None:
    """Note in a model's YAML, for each part of Python code, where it lies."""
    for part in _parts(data):
        if "python" in part:
            part[FOLDER] = str(file.resolve().parent)


def take_code(data: dict[str, Any]) -> list[str]:
    """Turn what `note_folder` noted into the digest of each part's code -> their folders, in the
    order of `models.python.spec.python_parts`."""
    folders = []
    for part in _parts(data):
        if "python" not in part:
            continue
        folder = part.pop(FOLDER, str(Path.cwd()))
        folders.append(folder)
        references = [part[key] for key in ("python", "adapter") if isinstance(part.get(key), str)]
        try:
            part["code"] = digest(references, Path(folder))
        except ValueError as error:
            raise UserError(str(error)) from None
    return folders


def give_leave_to(model: Model, folders: list[str], path: str) -> None:
    """Let the model's code be imported, where the user named its YAML."""
    if is_named(path):
        for part, folder in zip(python_parts(model), folders, strict=True):
            give_leave(part, Path(folder))


def _parts(data: dict[str, Any]) -> list[dict[str, Any]]:
    encoders = data.get("text_encoders")
    several = encoders if isinstance(encoders, (list, tuple)) else []
    parts = [data.get("denoiser"), data.get("vae"), *several]
    return [part for part in parts if isinstance(part, dict)]
