"""Findings as a table and as a document."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.report.numbers import whole
from bench.report.tables.table import Table, number, numbers, table
from bench.studies.verify.findings import Finding

SHOWN = 20  # of what differs; --json has all


def findings_table(title: str, found: Sequence[Finding]) -> Table:
    """What agrees in one line each, then what differs."""
    wrong = [finding for finding in found if finding.verdict == "differs"]
    rest = [finding for finding in found if finding.verdict != "differs"]
    shown = [*rest, *wrong[:SHOWN]]
    return table(
        title,
        ["check", "verdict", numbers("held"), "where", "why"],
        [[f.check, f.verdict, number(f.n, whole), f.where, f.said] for f in shown],
        note=f"{len(wrong)} figures differ" if wrong else "nothing differs",
    )


def findings_document(directory: Path, found: Sequence[Finding]) -> dict[str, Any]:
    """`verify --json`."""
    return {
        "result_dir": str(directory),
        "agrees": not any(f.verdict == "differs" for f in found),
        "findings": [vars(f) for f in found],
    }
