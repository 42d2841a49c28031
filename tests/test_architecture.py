"""The rules of the house: which way imports run, how long a file and a function may be, and the
path of one point from the command line to the report."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ORDER = [
    "models",
    "bench.core",
    "bench.results",
    "bench.count",
    "bench.measure",
    "bench.calibrate",
    "bench.studies",
    "bench.run",
    "bench.report",
    "bench.explore",
    "bench.commands",
    "bench.cli",
]
MODULES = sorted(p for folder in ("bench", "models") for p in (ROOT / folder).rglob("*.py"))
SOURCES = [*MODULES, *sorted((ROOT / "tests").rglob("*.py")), *sorted((ROOT / "docs").glob("*.py"))]
WITHOUT_TORCH = [
    "core",
    "results",
    "calibrate",
    "studies",
    "run",
    "report",
    "explore",
    "commands",
]  # under bench/
MEASURES_ITSELF = {"bench.studies.serving.batches"}
"""Studies that time something of their own, and so may import torch at the top."""
TORCH = {"torch", "diffusers", "bench.count.point", "bench.count.trace", "bench.count.depth"}

LINES_OF_A_FILE = 350
LINES_OF_A_FUNCTION = 60
PARAMETERS = 8
MODULES_OF_A_FOLDER = 15
LINES_TWICE = 12


def name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


NAMES = {name(path): path for path in MODULES}


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def nodes(tree: ast.AST) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(tree))


def imported(tree: ast.AST, known: dict[str, Path]) -> Iterator[str]:
    """Modules of `known` that the code imports, within functions too."""
    for node in nodes(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            modules = [module for module in inner if module in known]
            yield from modules
            if len(modules) < len(inner) and node.module in known:
                yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)


def stage(module: str) -> int:
    """The last room in ORDER that the module lies in; raises StopIteration for a new room."""
    return next(
        i for i, room in enumerate(ORDER) if module == room or module.startswith(room + ".")
    )


@pytest.mark.parametrize("path", [p for p in MODULES if name(p) != "bench"], ids=name)
def test_a_module_imports_only_from_rooms_before_its_own(path):
    for module in imported(parsed(path), NAMES):
        if module != "bench":
            assert stage(module) <= stage(name(path)), f"{name(path)} imports {module}"


def test_there_is_no_import_circle():
    """Imports within functions count: they would only hide one."""
    graph = {module: set(imported(parsed(path), NAMES)) for module, path in NAMES.items()}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join([*trail[trail.index(module) :], module])
        if module not in done:
            for other in sorted(graph[module]):
                visit(other, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_no_study_imports_another():
    studies = {module for module in NAMES if module.startswith("bench.studies.")}
    for module in studies:
        own = module.split(".")[2]
        others = {m.split(".")[2] for m in imported(parsed(NAMES[module]), NAMES) if m in studies}
        assert others <= {own}, f"{module} imports the study {', '.join(others - {own})}"


def test_no_test_imports_a_test():
    for path in (ROOT / "tests").rglob("*.py"):
        for node in nodes(parsed(path)):
            names = (
                [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else []
            )
            tests = [n for n in names if n.split(".")[-1].startswith(("test_", "conftest"))]
            assert not tests, f"{path.relative_to(ROOT)} imports {tests[0]}"


def test_folders_hold_few_modules():
    for folder in {path.parent for path in SOURCES}:
        modules = [p for p in folder.glob("*.py") if p.name != "__init__.py"]
        assert len(modules) <= MODULES_OF_A_FOLDER, f"{folder}: {len(modules)} modules"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_are_short(path):
    lines = path.read_text().count("\n")
    assert lines <= LINES_OF_A_FILE, f"{lines} lines"
    for node in nodes(parsed(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = node.end_lineno - node.lineno + 1
            assert length <= LINES_OF_A_FUNCTION, f"{node.name}: {length} lines"
            if not is_command(path, node):
                assert len(parameters(node)) <= PARAMETERS, f"{node.name}: {parameters(node)}"


def is_command(path: Path, node: ast.FunctionDef) -> bool:
    """Typer declares each option of a command as a parameter."""
    return "commands" in path.parts and not node.name.startswith("_")


def parameters(node: ast.FunctionDef) -> list[str]:
    given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return [arg.arg for arg in given if arg.arg not in ("self", "cls")]


@pytest.mark.parametrize("room", WITHOUT_TORCH)
def test_no_torch_at_import(room):
    """`list`, `analytic` and `report` answer at once, and on a machine without torch."""
    for path in (ROOT / "bench" / room).rglob("*.py"):
        if name(path) in MEASURES_ITSELF:
            continue
        for node in parsed(path).body:
            if isinstance(node, ast.ImportFrom):
                names = {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            elif isinstance(node, ast.Import):
                names = {alias.name for alias in node.names}
            else:
                continue
            heavy = {n for n in names if n in TORCH or n.split(".")[0] in TORCH}
            assert not heavy, f"{name(path)} imports {', '.join(heavy)}"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_modules_and_public_classes_say_what_they_are(path):
    tree = parsed(path)
    assert ast.get_docstring(tree)
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            settings_only = all(isinstance(n, (ast.Assign, ast.AnnAssign)) for n in node.body)
            assert ast.get_docstring(node) or settings_only, f"{name(path)}.{node.name}"


def test_no_two_places_share_twelve_lines():
    """Imports and data apart: a run of equal lines of code is one function that has two homes."""
    places: dict[tuple[str, ...], str] = {}
    for path in SOURCES:
        code = lines_of_code(path)
        for i in range(len(code) - LINES_TWICE + 1):
            window = code[i : i + LINES_TWICE]
            where = f"{path.relative_to(ROOT)}:{window[0][0]}"
            text = tuple(line for _, line in window)
            before = places.setdefault(text, where)
            assert before == where, f"{before} and {where} share {LINES_TWICE} lines"


def lines_of_code(path: Path) -> list[tuple[int, str]]:
    """(line number, text) of a file's code, without imports, constants' values, comments,
    docstrings and lines that hold brackets alone."""
    skipped: set[int] = set()
    for node in nodes(parsed(path)):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        is_import = isinstance(node, (ast.Import, ast.ImportFrom))
        is_data = isinstance(node, (ast.List, ast.Dict, ast.Tuple, ast.Set))
        if (is_text and node.end_lineno > node.lineno) or is_import or is_data:
            skipped |= set(range(node.lineno, node.end_lineno + 1))
    numbered = enumerate(path.read_text().splitlines(), 1)
    return [
        (number, line.strip())
        for number, line in numbered
        if number not in skipped and re.search(r"\w", line) and not line.strip().startswith("#")
    ]


def path_of_a_point() -> list[str]:
    """The files of the numbered list in docs/architecture.md."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    section = text.split("## The path of one point")[1].split("\n## ")[0]
    return re.findall(r"^\d+\. `([\w/]+\.py)`", section, re.MULTILINE)


def test_the_path_of_a_point_is_short_and_true():
    """Each file of the list is imported by one before it (a call returns to where it came from),
    or started by it as a process."""
    files = path_of_a_point()
    assert 2 <= len(files) <= 14
    for i, file in enumerate(files):
        assert (ROOT / file).exists(), file
        module = name(ROOT / file)
        assert i == 0 or any(reaches(ROOT / before, module) for before in files[:i]), file


def reaches(path: Path, module: str) -> bool:
    started = f'"-m", "{module}"'
    return module in imported(parsed(path), NAMES) or started in " ".join(path.read_text().split())


def test_the_readmes_commands_stand_alone():
    text = (ROOT / "README.md").read_text()
    for marker, ending in (
        ("main", ".venv/bin/ldt-bench run smoke"),
        ("test", ".venv/bin/python -m pytest"),
    ):
        block = text.split(f"<!-- {marker} command -->")[1]
        command = block.split("```sh\n")[1].split("\n")[0]
        assert command.startswith(
            "python3 -m venv --system-site-packages .venv && .venv/bin/pip install"
        )
        assert command.endswith(ending)
