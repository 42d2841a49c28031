"""Writes docs/schema.md: every field of a result's files, from the pydantic models and the strings
beneath their fields.

python docs/make_schema.py [--check]        --check: exit 1 where docs/schema.md is stale
"""

import ast
import inspect
import re
import sys
import types
from pathlib import Path
from textwrap import dedent
from typing import Annotated, Any, Literal, Union, get_args, get_origin

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pydantic import BaseModel

from bench.calibrate.calibration import Calibration
from bench.core.specs.claim import Claim
from bench.core.specs.suite import Suite
from bench.results.records import CeilingsRecord, PointRecord
from bench.results.store import Round

PAGE = Path(__file__).parent / "schema.md"
FILES: list[tuple[str, str, list[type[BaseModel]]]] = [
    (
        "records.jsonl",
        (
            "A line is a point measured once, or the ceilings of the device; `kind` says which."
            " Append-only."
        ),
        [PointRecord, CeilingsRecord],
    ),
    ("samples.jsonl", "A line is a round of one stage, on disk before the next is timed.", [Round]),
    ("suite.json", "The suite that was run, resolved.", [Suite]),
    ("calibration.json", "What was fitted to the records.", [Calibration]),
    ("configs/claims/*.yaml", "A claim, and how it is checked.", [Claim]),
]
INTRO = """# The files of a result

Written by `python docs/make_schema.py` from the code. SI units, named in the keys; null where there
is no reading. Keys may be added within a `schema_version`; a key that changes its meaning makes a
new one, and an entry in CHANGELOG.md.
What each provenance word means is in the [glossary](glossary.md).
"""


def page() -> str:
    """The whole document: the files in order, then every model that they hold, each once, in the
    order it is met."""
    lines, queue, seen = [INTRO], [], set()
    for name, what, models in FILES:
        lines.append(f"## {name}\n\n{what}\n")
        for model in models:
            lines.append(section(model, queue))
            seen.add(model)
    lines.append("## What they hold\n")
    while queue:
        model = queue.pop(0)
        if model not in seen:
            seen.add(model)
            lines.append(section(model, queue))
    return "\n".join(lines).rstrip() + "\n"


def section(model: type[BaseModel], queue: list[type[BaseModel]]) -> str:
    """One model: its docstring, and a row a field.  Models that its fields hold join the queue."""
    said = meanings(model)
    rows = ["| field | type | meaning |", "| --- | --- | --- |"]
    for name, field in model.model_fields.items():
        annotation = model.__annotations__.get(name, field.annotation)
        annotation = field.annotation if isinstance(annotation, str) else annotation
        default = "" if field.is_required() else " *May be left out.*"
        rows.append(
            f"| `{name}` | {words(annotation, queue)} | {cell(said.get(name, '') + default)} |"
        )
    about = inspect.getdoc(model) or ""
    about = "" if about == inspect.getdoc(BaseModel) else about
    return f"### {model.__name__}\n\n" + (f"{about}\n\n" if about else "") + "\n".join(rows) + "\n"


def meanings(model: type[BaseModel]) -> dict[str, str]:
    """The string beneath each field, those of base classes included."""
    found: dict[str, str] = {}
    for cls in reversed(
        [c for c in model.__mro__ if issubclass(c, BaseModel) and c is not BaseModel]
    ):
        (body,) = [
            n for n in ast.parse(dedent(inspect.getsource(cls))).body if isinstance(n, ast.ClassDef)
        ]
        for field, after in zip(body.body, [*body.body[1:], None], strict=True):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
                and isinstance(after.value.value, str)
            ):
                found[field.target.id] = after.value.value
    return found


def words(kind: Any, queue: list[type[BaseModel]]) -> str:
    """A type in words; models as links to their section."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return words(args[0], queue)
    if kind is type(None):
        return "null"
    if origin is Literal:
        shown = [f"`{a}`" for a in args]
        return " or ".join(shown)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(words(a, queue) for a in args))
    if origin in (list, tuple, set, frozenset):
        inner = [a for a in args if a is not Ellipsis]
        if origin is tuple and len(inner) == len(args):
            return "(" + ", ".join(words(a, queue) for a in inner) + ")"
        return f"list of {words(inner[0], queue)}"
    if origin is dict:
        return f"{words(args[0], queue)} → {words(args[1], queue)}"
    if inspect.isclass(kind) and issubclass(kind, BaseModel):
        queue.append(kind)
        return f"[{kind.__name__}](#{kind.__name__.lower()})"
    plain = {str: "text", int: "integer", float: "number", bool: "true or false", Any: "anything"}
    return plain.get(kind, getattr(kind, "__name__", str(kind)))


def cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().replace("|", "\\|")


def main() -> int:
    text = page()
    if "--check" not in sys.argv:
        PAGE.write_text(text)
        print(f"written: {PAGE.relative_to(ROOT)}")
        return 0
    if not PAGE.is_file() or PAGE.read_text() != text:
        print("docs/schema.md is stale: python docs/make_schema.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
