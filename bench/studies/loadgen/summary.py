"""LoadGen's own log: mlperf_log_summary.txt."""

import re
from dataclasses import dataclass
from pathlib import Path

from bench.core.errors import UserError

FILE = "mlperf_log_summary.txt"
LINE = re.compile(r"^\s*(.+?)\s*:\s*(.*?)\s*$")
NANOSECONDS = 1e-9


@dataclass(frozen=True)
class Summary:
    """What LoadGen says of a run."""

    scenario: str
    valid: bool
    percentiles_s: dict[float, float]
    """Share -> seconds of latency."""
    samples_per_s: float | None
    """Offline's rate, or Server's of completed ones."""
    lines: dict[str, str]
    """All, by their names."""


def read_summary(folder: Path) -> Summary:
    """Raises UserError where there is none, or it is no summary."""
    path = folder / FILE
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        raise UserError(f"{folder}: no readable {FILE}") from None
    return parse(text, str(path))


def parse(text: str, path: str = FILE) -> Summary:
    """The lines "name : value".  Raises UserError."""
    lines = {m[1]: m[2] for line in text.splitlines() if (m := LINE.match(line))}
    if "Scenario" not in lines or "Result is" not in lines:
        raise UserError(f"{path}: expected LoadGen's summary, found neither Scenario nor Result is")
    percentiles = {
        round(float(m[1]) / 100, 6): float(value) * NANOSECONDS
        for name, value in lines.items()
        if (m := re.fullmatch(r"([\d.]+)\s*percentile latency \(ns\)", name.replace("th", "")))
    }
    rates = ("Samples per second", "Completed samples per second")
    rate = next((float(lines[name]) for name in rates if name in lines), None)
    return Summary(
        scenario=lines["Scenario"],
        valid=lines["Result is"] == "VALID",
        percentiles_s=percentiles,
        samples_per_s=rate,
        lines=lines,
    )
