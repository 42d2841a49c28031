"""Where in a user's code an error arose, in one line."""

import inspect
import re
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path

from models.python.imports import CodeNotFound, import_part, user_folders
from models.python.spec import PythonPart

COMPILED = re.compile(r'File "([^"]+)", line (\d+), in (\w+)')
"""What torch.compile quotes of the code that it failed on."""


def in_user_code(error: BaseException, parts: Iterable[PythonPart]) -> str:
    """One line: file, line and function of the user's code nearest to an error, and the error.

    Where none of its own lines ran (arguments that a function does not take), the class is named.
    """
    if isinstance(error, CodeNotFound):
        return str(error)
    said = _said(error)
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name}:{error.lineno}: {said}"
    classes = list(_classes(parts))
    roots = _roots(classes)
    places = [*_frames(error, roots), *_quoted(error, roots)]
    if places:
        file, line, function = places[0]
        where = "" if function == "<module>" else f", in {function}"
        return f"{file.name}:{line}{where}: {said}"
    if classes:
        file, line = _defined(classes[0])
        return f"{file.name}:{line}, class {classes[0].__name__}: {said}"
    return said


def defined(part: PythonPart) -> str:
    """Where a part's class stands: "my_model.py:12"."""
    for made in _classes([part]):
        file, line = _defined(made)
        return f"{file.name}:{line}"
    return part.python


def _said(error: BaseException) -> str:
    line = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def _classes(parts: Iterable[PythonPart]) -> Iterator[type]:
    for part in parts:
        try:
            made, _ = import_part(part)
        except Exception:  # the error at hand, most likely
            continue
        if inspect.isclass(made):
            yield made


def _roots(classes: Iterable[type]) -> list[Path]:
    """Folders of the user's code."""
    packages = []
    for made in classes:
        file, _ = _defined(made)
        depth = made.__module__.count(".")
        packages.append(file.parents[depth] if depth < len(file.parents) else file.parent)
    return [Path(folder) for folder in user_folders()] + packages


def _defined(made: type) -> tuple[Path, int]:
    return Path(inspect.getsourcefile(made) or "?"), inspect.getsourcelines(made)[1]


def _frames(error: BaseException, roots: list[Path]) -> Iterator[tuple[Path, int, str]]:
    """The innermost of the user's lines that each error of the chain passed."""
    seen: BaseException | None = error
    while seen is not None:
        for frame in reversed(traceback.extract_tb(seen.__traceback__)):
            if _is_users(Path(frame.filename), roots):
                yield Path(frame.filename), frame.lineno or 0, frame.name
                break
        seen = seen.__cause__ or seen.__context__


def _quoted(error: BaseException, roots: list[Path]) -> Iterator[tuple[Path, int, str]]:
    for file, line, function in reversed(COMPILED.findall(str(error))):
        if _is_users(Path(file), roots):
            yield Path(file), int(line), function


def _is_users(file: Path, roots: list[Path]) -> bool:
    """Does it lie in a folder of the user's, and in no environment within it?"""
    own = Path(__file__).parents[2]  # a YAML may lie in a checkout of this project
    for root in roots:
        if file.is_relative_to(root):
            inside = file.relative_to(root).parts
            packages = {"site-packages", "dist-packages"}
            of_project = any(file.is_relative_to(own / room) for room in ("bench", "models"))
            return not packages.intersection(inside) and not of_project
    return False
