"""The test suite on several versions of PyTorch.

    python tests/tools/torch_versions.py 2.7.1 2.8.0 2.11.0 2.13.0 -- -k recipes

Makes an environment for each version (some GB each, as pip's torch is a CUDA build), installs the
project with that torch, runs the README's test command, and prints a table.  What stands after `--`
goes to pytest.  An environment of `--folder` that holds the version already is used as it is.  Exit
code 1 where a test failed.
"""

import argparse
import os
import subprocess
import sys
import time
import tomllib
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VERSION = "import importlib.metadata as m; print(m.version('torch'))"


@dataclass(frozen=True)
class Outcome:
    """What the suite did on one version."""

    torch: str
    passed: int
    failed: tuple[str, ...]
    """Tests that failed or could not be set up."""
    skipped: int
    seconds: float
    reason: str | None = None
    """Why there are no tests: it could not be installed, or pytest did not come to its end."""


def dependencies() -> list[str]:
    """What the project and its tests need beside torch, as pyproject says it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["quantise"], *extras["explore"], *extras["test"]]
    return [line for line in wanted if not line.startswith(("torch>", "ldt-bench["))]


def python_of(folder: Path, version: str) -> Path:
    """An environment's Python, made where there is none.  Raises CalledProcessError where pip
    does."""
    python = folder / f"torch-{version}" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(python.parents[1])], check=True)
    there = subprocess.run(
        [str(python), "-c", VERSION], capture_output=True, text=True, check=False
    )
    if there.stdout.partition("+")[0].strip() != version:
        pip = [str(python), "-m", "pip", "install", "-q"]
        subprocess.run([*pip, f"torch=={version}"], check=True)
        # Apart, and held to this torch: another dependency may ask for a newer one.
        subprocess.run([*pip, f"torch=={version}", *dependencies()], check=True)
    return python


def run(folder: Path, version: str, arguments: list[str]) -> Outcome:
    """Install the version where it is missing, and run the tests on it."""
    try:
        python = python_of(folder, version)
    except subprocess.CalledProcessError as error:
        return Outcome(
            version, 0, (), 0, 0.0, f"not installed: {' '.join(map(str, error.cmd[1:]))}"
        )
    results, log = folder / f"torch-{version}.xml", folder / f"torch-{version}.txt"
    results.unlink(missing_ok=True)
    start = time.monotonic()
    with log.open("w") as out:
        code = subprocess.run(
            [
                str(python),
                "-m",
                "pytest",
                "-p",
                "no:cacheprovider",
                f"--junit-xml={results}",
                *arguments,
            ],
            cwd=ROOT,
            stdout=out,
            stderr=subprocess.STDOUT,
            check=False,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        ).returncode
    seconds = time.monotonic() - start
    if not results.exists():
        return Outcome(version, 0, (), 0, seconds, f"pytest ended with {code}; see {log}")
    return read(version, results, seconds)


def read(version: str, results: Path, seconds: float) -> Outcome:
    """pytest's own report of a run."""
    cases = list(ElementTree.parse(results).iter("testcase"))
    failed = tuple(
        f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    )
    skipped = sum(case.find("skipped") is not None for case in cases)
    return Outcome(version, len(cases) - len(failed) - skipped, failed, skipped, seconds)


def table(outcomes: list[Outcome]) -> str:
    lines = [f"{'torch':10}{'passed':>8}{'failed':>8}{'skipped':>9}{'seconds':>9}"]
    for o in outcomes:
        lines.append(
            f"{o.torch:10}{o.passed:8}{len(o.failed):8}{o.skipped:9}{o.seconds:9.0f}"
            + (f"  {o.reason}" if o.reason else "")
        )
        lines += [f"    {name}" for name in o.failed]
    return "\n".join(lines)


def main() -> None:
    at = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("versions", nargs="+", help="of torch, e.g. 2.11.0")
    parser.add_argument(
        "--folder", type=Path, default=ROOT / ".torch-versions", help="of the environments and logs"
    )
    args = parser.parse_args(sys.argv[1:at])
    folder = args.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    outcomes = []
    for version in args.versions:
        outcomes.append(run(folder, version, sys.argv[at + 1 :]))
        print(table(outcomes[-1:]), flush=True)
    print(table(outcomes))
    sys.exit(any(o.failed or o.reason for o in outcomes))


if __name__ == "__main__":
    main()
