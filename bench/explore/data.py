"""Every record under a results directory as one compact table, and which calibrations lie beside
them.

Ten thousand records are some hundred megabytes, mostly samples and operators that no table shows.
msgspec reads the fields named here and skips the rest without building it, many times as fast as
parsing everything; a line that lacks them is left out and said so.
`bench.results.store.read_records` remains the strict reader of one result.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from bench.calibrate.calibration import default_recipe, kind_of
from bench.core.quantity import Quantity
from bench.explore.decoders import CALIBRATION_DECODER, RECORD_DECODER
from bench.results.records import SCHEMA_VERSION
from bench.results.store import CALIBRATION, RECORDS
from bench.results.video import (
    MEASURED,
    calls_per_video,
    minutes_from,
    video_seconds,
)

WORDS = (
    "result",
    "suite",
    "started_utc",
    "gpu",
    "device_name",
    "model",
    "workload",
    "recipe",
    "guidance",
    "outcome",
    "reason",
)
NUMBERS = (
    "tokens",
    "width",
    "height",
    "frames",
    "fps",
    "steps",
    "batch",
    "step_s",
    "step_low_s",
    "step_high_s",
    "n",
    "flops_per_s",
    "video_s",
    "minutes",
    "minutes_low",
    "minutes_high",
    "peak_bytes",
    "step_j",
)
DIGITS = 7  # of a number in the page
MAX_PROBLEMS = 50  # shown; the rest is a number


@dataclass
class Table:
    """Rows of points, column by column, in the order they were read.  Times and energies are
    measured."""

    columns: dict[str, list[Any]] = field(
        default_factory=lambda: {name: [] for name in (*WORDS, *NUMBERS)}
    )
    calibrations: list[dict[str, Any]] = field(default_factory=list)
    """id (the directory under results), gpu, device_name, kind, suite, headline_recipe,
    headline_model, recipes, default_recipe, leave_one_out."""
    problems: list[str] = field(default_factory=list)
    more_problems: int = 0

    def __len__(self) -> int:
        return len(self.columns["model"])

    def problem(self, text: str) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(text)
        else:
            self.more_problems += 1

    def document(self) -> dict[str, Any]:
        """As JSON: words as {"words", "codes"}, so that ten thousand rows name a model once;
        numbers to as many digits as any timing has."""
        encoded: dict[str, Any] = {
            name: [_short(value) for value in self.columns[name]] for name in NUMBERS
        }
        for name in WORDS:
            codes = {word: i for i, word in enumerate(dict.fromkeys(self.columns[name]))}
            encoded[name] = {
                "words": list(codes),
                "codes": [codes[word] for word in self.columns[name]],
            }
        return {
            "rows": len(self),
            "columns": encoded,
            "calibrations": self.calibrations,
            "problems": self.problems,
            "more_problems": self.more_problems,
        }


def _short(value: Any) -> Any:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def read_table(results: Path) -> Table:
    """All results below a directory, hidden directories left out."""
    table = Table()
    for directory in result_directories(results):
        name = directory.relative_to(results).as_posix()
        if (directory / RECORDS).is_file():
            _read_records(directory / RECORDS, name, RECORD_DECODER, table)
        if (directory / CALIBRATION).is_file():
            _read_calibration(directory / CALIBRATION, name, CALIBRATION_DECODER, table)
    return table


def result_directories(results: Path) -> Iterator[Path]:
    """Directories that hold records or a calibration, sorted; links are not followed."""
    for folder, below, files in os.walk(results):
        below[:] = sorted(name for name in below if not name.startswith("."))
        if RECORDS in files or CALIBRATION in files:
            yield Path(folder)


def state(results: Path) -> tuple[tuple[str, int, int], ...]:
    """Name, size and time of every file that read_table reads: as long as it stays, so does the
    table."""
    files = (d / name for d in result_directories(results) for name in (RECORDS, CALIBRATION))
    return tuple(
        (str(f), s.st_size, s.st_mtime_ns) for f in files if f.is_file() for s in [f.stat()]
    )


def _read_records(path: Path, name: str, decoder: Any, table: Table) -> None:
    rows: dict[str, list[Any]] = {}
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        return table.problem(f"{name}/{RECORDS}: {(error.strerror or str(error)).lower()}")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = decoder.decode(line)
            if record.schema_version > SCHEMA_VERSION:
                raise ValueError(
                    f"schema version {record.schema_version} is newer than this ldt-bench's"
                    f" {SCHEMA_VERSION}"
                )
            if record.kind == "point":
                rows[record.fingerprint] = _row(
                    name, record
                )  # the last one counts: a failed point is measured again
        except (msgspec.DecodeError, ValueError, ArithmeticError) as error:
            table.problem(f"{name}/{RECORDS}:{number}: left out: {error}")
    for row in rows.values():
        for column, value in zip(table.columns.values(), row, strict=True):
            column.append(value)


def _row(result: str, record: Any) -> list[Any]:
    """In the order of WORDS, NUMBERS.  Raises ValueError where a point lacks its workload."""
    if record.point is None or not record.model:
        raise ValueError("a point without its model or workload")
    workload, step = record.point.workload, record.timings.get("denoise_step")
    counted = record.counts.get("denoise_step")
    flops = (
        counted.linear_flops + counted.attention_flops + counted.conv_flops + counted.other_flops
        if counted
        else None
    )
    video = _video_s(record)
    cards = record.group.of_one_sample if record.group else 1
    minutes = minutes_from(workload, video.scaled(cards)) if video else None
    energy = (record.telemetry or {}).get("denoise_step")
    joules = energy.energy.energy_j if energy is not None and energy.energy is not None else None
    environment, memory = record.environment, record.memory
    return [
        result,
        record.suite,
        record.started_utc,
        environment.gpu,
        environment.device_name,
        record.model,
        record.workload,
        record.recipe,
        workload.guidance,
        record.outcome,
        record.reason,
        record.tokens,
        workload.width,
        workload.height,
        workload.frames,
        workload.fps,
        workload.steps,
        workload.batch,
        *((step.median_s, step.low_s, step.high_s, step.n) if step else (None,) * 4),
        flops / step.median_s if flops and step else None,
        video.value if video else None,
        *((minutes.value, minutes.low, minutes.high) if minutes else (None,) * 3),
        memory.peak_allocated if memory else None,
        joules,
    ]


def _video_s(record: Any) -> Quantity | None:
    """Seconds of a whole video, where every stage of it was timed."""
    if "denoise_step" not in record.counts or record.outcome not in MEASURED:
        return None
    calls = calls_per_video(record.point.workload, record.counts)
    return video_seconds(calls, record.timings)


def _read_calibration(path: Path, name: str, decoder: Any, table: Table) -> None:
    try:
        read = decoder.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        return table.problem(f"{name}/{CALIBRATION}: left out: {error}")
    by_recipe: dict[str, Any] = {}
    for first, fit in read.fits.items():
        by_recipe = dict.fromkeys(fit.recipes or [first], fit) | by_recipe
    table.calibrations.append(
        {
            "id": name,
            "gpu": read.gpu,
            "device_name": read.device_name,
            "suite": read.suite,
            "headline_recipe": read.headline_recipe,
            "headline_model": read.headline and read.headline.model,
            "kind": kind_of(read.gpu),
            "recipes": list(by_recipe),
            "default_recipe": default_recipe(
                read.gpu, read.headline_recipe, {r: fit.dtype for r, fit in by_recipe.items()}
            ),
            "leave_one_out": {
                r: fit.leave_one_out and fit.leave_one_out.mean for r, fit in by_recipe.items()
            },
        }
    )
