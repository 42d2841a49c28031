"""Data flows one way, public names are documented, and the README's commands are the ones that are
tested."""

import ast
from pathlib import Path

import pytest
from conftest import ROOT

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
]
MODULES = sorted(p for folder in ("bench", "models") for p in (ROOT / folder).rglob("*.py"))


def stage(module: str) -> int:
    return max(
        (
            i
            for i, prefix in enumerate(ORDER)
            if module == prefix or module.startswith(prefix + ".")
        ),
        default=-1,
    )


def imports(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module)
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
    return found


def name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_imports_only_from_stages_before_its_own(path):
    own = stage(name(path))
    if own < 0:
        return  # bench/cli.py, bench/commands/ and bench/run/suite.py know them all
    for imported in imports(path):
        if imported.startswith(("bench", "models")):
            assert 0 <= stage(imported) <= own, f"{name(path)} imports {imported}"


@pytest.mark.parametrize(
    "folder",
    [
        "bench/core",
        "bench/results",
        "bench/calibrate",
        "bench/studies",
        "bench/run",
        "bench/report",
        "bench/explore",
        "bench/commands",
    ],
)
def test_no_torch_at_import(folder):
    for path in (ROOT / folder).rglob("*.py"):
        top = [
            n
            for n in ast.parse(path.read_text()).body
            if isinstance(n, (ast.Import, ast.ImportFrom))
        ]
        for node in top:
            names = (
                [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else [a.name for a in node.names]
            )
            assert not any(
                n.split(".")[0] in ("torch", "diffusers")
                or n in ("bench.count.point", "bench.count.trace")
                for n in names
            ), path


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_modules_and_public_classes_say_what_they_are(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            base_settings_only = all(isinstance(n, (ast.Assign, ast.AnnAssign)) for n in node.body)
            assert ast.get_docstring(node) or base_settings_only, f"{name(path)}.{node.name}"


def test_the_readmes_commands_stand_alone():
    text = (ROOT / "README.md").read_text()
    for marker, ending in (
        ("main", ".venv/bin/ldt-bench run smoke"),
        ("test", ".venv/bin/python -m pytest"),
    ):
        command = text.split(f"<!-- {marker} command -->")[1].split("```sh\n")[1].split("\n")[0]
        assert command.startswith(
            "python3 -m venv --system-site-packages .venv && .venv/bin/pip install"
        )
        assert command.endswith(ending)
