"""`--json` is a contract: a key that a command has printed once stays.

tests/golden/documents.json holds the keys of every command's document as an earlier version
printed them.  Keys may be added; one that is gone or renamed fails here.  After adding a command,
`PYTHONPATH=tests python tests/commands/test_contract.py` writes the keys of commands that the file
does not know yet.
"""

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.cli import MICRO_SUITE, cli
from support.paths import GOLDEN, ROOT

STORED = GOLDEN / "documents.json"
CALIBRATED = "20261122T065001Z_calibrate-cpu"
HELD_OUT = "20261122T065125Z_holdout-cpu"
CPU = ["--device", "cpu"]
CLIP = ["-w", "tiny-clip", "--recipe", "eager", "--set", "recipe.dtype=fp32"]
PUBLISHED = "configs/reference/published_latency.csv"
COMMANDS: dict[str, list[str]] = {
    "list": ["list"],
    "count own": ["count", "tiny", "-w", "tiny-clip"],
    "count public": ["count", "wan-tiny", "-w", "tiny-clip"],
    "calibrate": ["calibrate", "{calibrated}"],
    "predict": ["predict", "tiny", "-w", "tiny-wide", "--calibration", "{calibrated}"],
    "holdout": ["holdout", "{calibrated}", "{held_out}"],
    "calibrate --against": ["calibrate", "{calibrated}", "--against", "{held_out}"],
    "run --choose-for": [
        "run",
        "smoke",
        "--choose-for",
        "tiny",
        "-w",
        "tiny-wide",
        "--budget",
        "8s",
        *CPU,
        "--calibration",
        "{calibrated}",
    ],
    "plan": [
        "plan",
        "--for",
        "tiny",
        "-w",
        "tiny-wide",
        "--suite",
        "smoke",
        "--budget",
        "8s",
        *CPU,
        "--calibration",
        "{calibrated}",
    ],
    "analytic": ["analytic", "--sensitivity"],
    "analytic --calibration": ["analytic", "--sensitivity", "--calibration", "{calibrated}"],
    "claims": ["claims", "--calibration", "{calibrated}"],
    "report": ["report", "{calibrated}"],
    "compare": ["compare", "{calibrated}", "{calibrated}", "--allow-different"],
}
SLOW: dict[str, list[str]] = {  # they measure, or draw a page
    "versus": ["versus", "tiny", "tiny", *CLIP, *CPU, "--rounds", "6", "--max-time", "1s"],
    "check-timer": ["check-timer", "tiny", *CLIP, *CPU, "--rounds", "6"],
    "doctor --timer": ["doctor", "--timer", "-m", "tiny", *CLIP, *CPU, "--rounds", "6"],
    "doctor --ceilings": ["doctor", "--ceilings", *CPU],
    "doctor": ["doctor", *CPU, "--out", "{out}"],
    "serve-sim": [
        "serve-sim",
        "tiny",
        "-w",
        "tiny-image",
        "--requests",
        "100",
        "--max-batch",
        "2",
        *CPU,
    ],
    "run": ["run", "{suite}", *CPU, "--out", "{out}"],
    "run --dry-run": ["run", "smoke", "--dry-run", *CPU, "--calibration", "{calibrated}"],
    "calibrate --from": ["calibrate", "--from", PUBLISHED, "--gpu", "H200"],
    "explore --export": [
        "explore",
        "--results",
        "{results}",
        "--export",
        "{out}/page.html",
        "-m",
        "tiny",
    ],
}


def keys(document: Any) -> Any:
    """The document with its values left out: a list becomes one item with the keys of all."""
    if isinstance(document, dict):
        return {key: keys(value) for key, value in sorted(document.items())}
    if isinstance(document, list):
        merged: dict[str, Any] = {}
        for item in document:
            merged |= {k: v for k, v in (keys(item) or {}).items() if k not in merged or v}
        return merged
    return {}


def missing(stored: dict[str, Any], now: dict[str, Any], path: str = "") -> list[str]:
    """Paths of the keys that are stored and not there now.  Below `fixed` (calibrate --from) stand
    the parameters that the rows of that day could not tell apart: data, not a contract."""
    if path.endswith("fixed."):
        return []
    gone = [f"{path}{key}" for key in stored if key not in now]
    for key in stored.keys() & now.keys():
        gone += missing(stored[key], now[key], f"{path}{key}.")
    return gone


def places(folder: Path) -> dict[str, str]:
    """Copies of committed results, since commands write into them, and a suite of seconds."""
    results = folder / "results"
    for name in (CALIBRATED, HELD_OUT):
        if not (results / "cpu" / name).exists():
            shutil.copytree(ROOT / "results" / "cpu" / name, results / "cpu" / name)
    (folder / "micro.yaml").write_text(MICRO_SUITE)
    out = folder / "out"
    out.mkdir(exist_ok=True)
    return {
        "results": str(results),
        "calibrated": str(results / "cpu" / CALIBRATED),
        "out": str(out),
        "held_out": str(results / "cpu" / HELD_OUT),
        "suite": str(folder / "micro.yaml"),
    }


def document(command: list[str], folder: Path, call: Callable) -> Any:
    """What the command prints with --json, where call(*args) -> exit code, stdout, stderr."""
    filled = [word.format(**places(folder)) for word in command]
    code, out, err = call(*filled, "--json")
    assert code in (0, 1), err
    return json.loads(out.splitlines()[-1] if command[0] == "run" else out)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("contract")


@pytest.mark.parametrize(
    "command", [*COMMANDS, *(pytest.param(c, marks=pytest.mark.slow) for c in SLOW)]
)
def test_no_key_of_a_document_is_gone(command, folder, here, only_svg):
    stored = json.loads(STORED.read_text())
    printed = document((COMMANDS | SLOW)[command], folder, here)
    assert missing(stored[command], keys(printed)) == []


def test_a_renamed_key_is_seen():
    stored = keys({"points": [{"a": 1}, {"b": {"value": 2}}]})
    assert missing(stored, keys({"points": [{"a": 1, "b": {"value": 2, "more": 3}}]})) == []
    assert missing(stored, keys({"points": [{"a": 1, "b": {"median": 2}}]})) == ["points.b.value"]


def called(*args: str) -> tuple[int, str, str]:
    done = cli(*args, timeout=600)
    return done.returncode, done.stdout, done.stderr


def _store() -> None:
    """Add the commands that the file does not know; what it knows stays as it was printed then."""
    stored = json.loads(STORED.read_text()) if STORED.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        for name, command in (COMMANDS | SLOW).items():
            if name not in stored:
                print(name, flush=True)
                stored[name] = keys(document(command, Path(folder), called))
    STORED.write_text(json.dumps(stored, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    _store()
