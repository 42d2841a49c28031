"""What `doctor` and `run --dry-run` print."""

from typing import Any

from rich.table import Table

from bench.calibrate.acceptance import Acceptance
from bench.report.tables import table


def acceptance_table(device_name: str, acceptance: Acceptance) -> Table:
    return table(f"{device_name}: {acceptance.verdict} (measured, against published and datasheet figures)",
                 "check", "verdict", "measured", "expected", "why",
                 rows=[(c.name, c.verdict, c.measured or "–", c.expected or "–", c.why or "") for c in acceptance.checks])


def acceptance_document(environment: Any, acceptance: Acceptance) -> dict[str, Any]:
    """`doctor --json`."""
    return {**acceptance.as_dict(), "gpu": environment.gpu, "device_name": environment.device_name,
            "device": environment.device, "provenance": "measured"}
