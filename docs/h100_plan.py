"""docs/h100_plan.json: what the suites for an H100 are predicted to take, and the rows of it that
the pages show."""

import json
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from bench.core.errors import UserError
from bench.core.units import seconds

PLAN = Path("docs/h100_plan.json")
HALF_HOUR = ("h100-health", "h100-rates", "h100-anchor")
PLANNED_SUITES = (*HALF_HOUR, "h100", "ablations")
PLANNED_GPU = "h100-sxm"


def read_plan(root: Path) -> dict:
    """docs/h100_plan.json of the checkout at `root`.

    Raises UserError where a suite has changed since."""
    plan = json.loads((root / PLAN).read_text())
    stale = [
        name
        for name in PLANNED_SUITES
        if plan["suites"].get(name, {}).get("suite_sha256") != suite_digest(root, name)
    ]
    if stale:
        raise UserError(
            f"{PLAN} is of another version of {', '.join(stale)}: python docs/fill_readme.py --plan"
        )
    return plan


def plan_rows(plan: dict, wanted: tuple[str, ...]) -> list[tuple[str, ...]]:
    """A line for each suite: its name, points, time, cost, provenance."""
    return [
        (
            f"`run {name}`",
            str(suite["points"]),
            *spanned(suite["total"], seconds),
            *spanned(suite["cost_usd"], dollars),
            suite["provenance"],
        )
        for name in wanted
        for suite in [plan["suites"][name]]
    ]


def spanned(quantity: dict, shown: Callable[[float], str]) -> tuple[str, str]:
    return shown(quantity["value"]), f"{shown(quantity['low'])} to {shown(quantity['high'])}"


def dollars(value: float) -> str:
    return f"${value:.2f}"


def point_rows(plan: dict, suite: str) -> list[tuple[str, ...]]:
    """A line for each point of a suite: its name, stages, time."""
    rows = []
    for row in plan["suites"][suite]["rows"]:
        time = {"value": row["predicted_s"], "low": row["low_s"], "high": row["high_s"]}
        rows.append((row["point"], ", ".join(row["stages"]), *spanned(time, seconds)))
    return rows


def table(head: list[str], rows: list[tuple[str, ...]]) -> str:
    cells = [head, ["---"] * len(head), *([c.replace("|", "\\|") for c in row] for row in rows)]
    return "\n".join("| " + " | ".join(row) + " |" for row in cells) + "\n"


def suite_digest(root: Path, name: str) -> str:
    return sha256((root / "configs/suites" / f"{name}.yaml").read_bytes()).hexdigest()[:16]


def predict_plan(root: Path) -> None:
    """docs/h100_plan.json anew: what `run SUITE --dry-run` says of a rented card, without a record
    of one."""
    documents = {}
    for name in PLANNED_SUITES:
        command = [
            "run",
            name,
            "--dry-run",
            "--gpu",
            PLANNED_GPU,
            "--out",
            "/nonexistent",
            "--json",
        ]
        done = subprocess.run(
            [sys.executable, "-m", "bench.cli", *command],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        )
        documents[name] = json.loads(done.stdout)
    write_plan(root, documents)


def write_plan(root: Path, documents: dict[str, dict]) -> None:
    """Keep what the pages show of each suite's dry run."""
    suites = {}
    for name, document in documents.items():
        provenance = {row["provenance"] for row in document["points"]}
        suites[name] = {
            "command": f"ldt-bench run {name} --dry-run --gpu {PLANNED_GPU}",
            "suite_sha256": suite_digest(root, name),
            "points": sum(row["point"] != "ceilings" for row in document["points"]),
            "provenance": "/".join(sorted(map(str, provenance))),
            "total": document["total"],
            "cost_usd": document["cost_usd"],
            "rows": [
                {key: row[key] for key in ("point", "stages", "predicted_s", "low_s", "high_s")}
                for row in document["points"]
            ],
        }
    basis = next(iter(documents.values()))["basis"]
    (root / PLAN).write_text(
        json.dumps({"gpu": PLANNED_GPU, "basis": basis, "suites": suites}, indent=1) + "\n"
    )
