"""The results in this repository, as the pages list them."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from h100_plan import table

from bench.calibrate.calibration import Calibration
from bench.calibrate.read import read_calibration
from bench.core.load import names
from bench.results.records import CeilingsRecord, PointRecord
from bench.results.store import CALIBRATION, RECORDS, point_records, read_records, read_suite


@dataclass(frozen=True)
class Result:
    """One result directory."""

    path: Path
    """Relative to the repository."""
    suite: str
    records: list[PointRecord | CeilingsRecord]
    calibration: Calibration | None
    report: str | None
    """The file to open."""

    @property
    def gpu(self) -> str:
        return self.records[-1].environment.gpu

    @property
    def started_utc(self) -> str:
        return min(r.started_utc for r in self.records)

    @property
    def command(self) -> str:
        """How to measure this again."""
        suite = self.suite if self.suite in names("suites") else f"{self.path}/suite.json"
        return f"ldt-bench run {suite} --device {self.records[-1].environment.device}"


def results(root: Path) -> list[Result]:
    """Every result under results/, oldest first.  Raises UserError for one that cannot be read."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "results"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    files = (
        listed.stdout.split("\n")
        if listed.returncode == 0
        else [str(p.relative_to(root)) for p in (root / "results").rglob(RECORDS)]
    )  # a copy without its history
    folders = sorted(
        {Path(f).parent for f in files if Path(f).name == RECORDS and (root / f).is_file()}
    )
    found = [_read(root, folder) for folder in folders]
    return sorted(found, key=lambda r: (r.started_utc, str(r.path)))


def _read(root: Path, folder: Path) -> Result:
    directory = root / folder
    calibrated = (directory / CALIBRATION).is_file()
    reports = [name for name in ("report.html", "report.md") if (directory / name).is_file()]
    return Result(
        path=folder,
        suite=read_suite(directory).name,
        records=read_records(directory),
        calibration=read_calibration(directory) if calibrated else None,
        report=reports[0] if reports else None,
    )


def newest(found: list[Result]) -> list[Result]:
    """The newest result of each GPU and suite, by GPU."""
    return sorted({(r.gpu, r.suite): r for r in found}.values(), key=lambda r: (r.gpu, r.suite))


def of_h100(found: list[Result]) -> Result | None:
    """The newest with the waterfall's end on an H100: no other card's figure stands for one."""
    return next(
        (
            r
            for r in reversed(found)
            if r.gpu.startswith("h100") and r.calibration and r.calibration.reference
        ),
        None,
    )


def results_page(found: list[Result]) -> str:
    """results/README.md: every result with the command that made it."""
    rows = []
    for r in found:
        points = point_records(r.records)
        ok, environment = sum(p.outcome == "ok" for p in points), r.records[-1].environment
        rows.append(
            (
                f"[{r.path.name}]({Path(*r.path.parts[1:])})",
                r.gpu,
                environment.device_name,
                f"`{r.command}`",
                r.started_utc,
                f"{ok} of {len(points)}",
                environment.torch,
                environment.code_version[:12],
            )
        )
    listed = table(
        [
            "result",
            "GPU",
            "device",
            "command that made it",
            "started (UTC)",
            "points ok",
            "torch",
            "code",
        ],
        rows,
    )
    return (
        "# Results\n\nWritten by `python docs/fill_readme.py`. Each folder holds the records"
        " (measured), what was fitted to them, and a report;\n`docs/schema.md` explains the files,"
        " `ldt-bench report DIRECTORY` draws the report again.\n\n"
        + (listed if found else "No result is in this repository yet.\n")
    )
