"""Which Python files may be imported, and where they lie.

A YAML that the user names on the command line, or that a suite so named lists, may name classes.
A result directory and a table hold names of models, too; these give no leave, so that reading what
others sent runs none of their code.  Torch-free.
"""

import ast
import hashlib
import importlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from models.python.spec import PythonPart

INHERITED = "LDT_BENCH_IMPORTS"
"""What a process hands on to those that it starts: [[reference, code, folder], ...] as JSON."""

_leave: dict[str, str] = {}
"""Key of a part (its references and the digest of their files) -> folder of the YAML that named
it."""


class CodeNotFound(ValueError):
    """A module or a name in it is not there, or is another by now; the text says all."""


class NotNamed(CodeNotFound):
    """Code that no YAML of this command named."""


def give_leave(part: PythonPart, folder: Path) -> None:
    """Let a part's code be imported.  folder: of the YAML."""
    _leave[_key(part)] = str(folder)


def handed_on() -> dict[str, str]:
    """What tells a child process of it, among its environment variables."""
    return {INHERITED: json.dumps(_all())} if _all() else {}


def user_folders() -> list[str]:
    """Of the YAMLs whose code may be imported."""
    return list(dict.fromkeys(_all().values()))


def files_of(references: Iterable[str], folder: Path) -> list[Path]:
    """The sources of package.module:Name, beside the YAML or in the environment.  Imports nothing.
    Raises CodeNotFound naming the module."""
    files = []
    for reference in references:
        module = reference.partition(":")[0]
        file = _source(module, folder)
        if file is None:
            raise CodeNotFound(
                f"no module {module}, neither beside the YAML ({folder}) nor in this environment"
            )
        files.append(file)
    return files


def digest(references: Iterable[str], folder: Path) -> str:
    """Sixteen hex digits of the files of package.module:Name and of those that they import from
    beside them.  Raises as `files_of`."""
    modules = [reference.partition(":")[0] for reference in references]
    todo = list(zip(modules, files_of(references, folder), strict=True))
    hashed: dict[Path, str] = {}
    while todo:
        module, file = todo.pop()
        if file in hashed:
            continue
        text = file.read_bytes()
        hashed[file] = hashlib.sha256(text).hexdigest()
        root = file.parents[module.count(".") + (file.name == "__init__.py")]
        todo += [(name, found) for name in _imported(text, module) if (found := _at(name, root))]
    return hashlib.sha256("".join(sorted(hashed.values())).encode()).hexdigest()[:16]


def _imported(text: bytes, module: str) -> Iterator[str]:
    """Modules that a file's import statements may name."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return  # importing it will say so
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(module.split(".")[: -node.level]) if node.level else ""
            base = ".".join(filter(None, [above, node.module]))
            yield base
            yield from (f"{base}.{alias.name}".lstrip(".") for alias in node.names)


def import_part(part: PythonPart) -> tuple[Any, Any]:
    """A part's class and its adapter (None: none is named).

    Raises NotNamed where no YAML of this command named it, CodeNotFound where a file changed or
    lacks the name, and whatever importing it raises."""
    folder = _all().get(_key(part))
    if folder is None:
        raise NotNamed(
            f"{part.python} is Python code, which is imported only where its YAML, or a suite that"
            " lists it, is named on the command line"
        )
    files = files_of(part.references, Path(folder))
    if digest(part.references, Path(folder)) != part.code:
        raise CodeNotFound(f"{part.python}: its file changed since it was loaded; start again")
    named = [_named(*pair, folder) for pair in zip(part.references, files, strict=True)]
    return named[0], named[1] if len(named) > 1 else None


def _source(module: str, folder: Path) -> Path | None:
    parts = module.split(".")
    try:
        spec = find_spec(parts[0])
    except (ImportError, ValueError, AttributeError):
        spec = None
    places = spec.submodule_search_locations or () if spec is not None else ()
    for root in (folder, *(Path(place).parent for place in places)):
        file = _at(module, root)
        if file is not None:
            return file
    alone = spec is not None and len(parts) == 1 and (spec.origin or "").endswith(".py")
    return Path(spec.origin) if alone else None


def _at(module: str, root: Path) -> Path | None:
    """A module's file under a folder."""
    stem = root.joinpath(*module.split("."))
    files = (stem.with_suffix(".py"), stem / "__init__.py")
    return next((file for file in files if module and file.is_file()), None)


def _named(reference: str, file: Path, folder: str) -> Any:
    module, _, name = reference.partition(":")
    if file.is_relative_to(folder):
        if sys.path[:1] != [folder]:
            sys.path.insert(0, folder)  # what it imports lies beside it, as for a script
            importlib.invalidate_caches()
        _forget_namesakes(module, file)
    found = importlib.import_module(module)
    for part in filter(None, name.split(".")):
        if not hasattr(found, part):
            raise CodeNotFound(f"{file.name}: it has no {name}")
        found = getattr(found, part)
    return found


def _forget_namesakes(module: str, file: Path) -> None:
    """Two folders may each hold a model.py, and a file may have changed."""
    loaded = sys.modules.get(module)
    if loaded is None or Path(getattr(loaded, "__file__", None) or "") == file:
        return
    top = module.partition(".")[0]
    for name in [n for n in sys.modules if n == top or n.startswith(f"{top}.")]:
        del sys.modules[name]


def _key(part: PythonPart) -> str:
    return "|".join([*part.references, part.code])


def _all() -> dict[str, str]:
    return json.loads(os.environ.get(INHERITED) or "{}") | _leave
