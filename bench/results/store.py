"""A result directory: records.jsonl and samples.jsonl, append-only, each line on disk before the
next is measured.

A torn last line (the process was killed while writing it) is left out with a warning, and cut on
resume.
"""

import contextlib
import errno
import fcntl
import json
import os
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from bench.core.errors import EnvironmentFault, UserError
from bench.core.specs.suite import Suite
from bench.results.base import Seconds, Strict
from bench.results.readable import all_readable
from bench.results.records import SCHEMA_VERSION, CeilingsRecord, PointRecord, Record
from bench.results.video import MEASURED

RECORDS, SAMPLES, SUITE, CALIBRATION = (
    "records.jsonl",
    "samples.jsonl",
    "suite.json",
    "calibration.json",
)
PAGE = "report.html"
WORKER_LOG = "worker.log"  # tracebacks and chatter of the measuring process
_ADAPTER: TypeAdapter = TypeAdapter(Record)
Records = Sequence[PointRecord | CeilingsRecord]


class Round(Strict):
    """One line of samples.jsonl: a round of one stage of a point."""

    fingerprint: str
    stage: str
    samples_s: list[Seconds]
    environment: str | None = None
    """Its digest; None in results older than this field."""


class TornLine(UserWarning):
    """The last line of a file was cut off in writing."""


def check_directory(directory: Path) -> None:
    """Raises UserError where there is no such directory."""
    if directory.is_file():
        raise UserError(f"{directory}: expected a result directory, found a file")
    if not directory.is_dir():
        raise UserError(f"{directory}: no such result directory")


def read_records(directory: Path) -> list[PointRecord | CeilingsRecord]:
    """All records, in the order they were measured.  Raises as `each_record`."""
    return all_readable((record for _, record in each_record(directory)), directory)


def each_record(
    directory: Path,
) -> Iterator[tuple[dict[str, Any], PointRecord | CeilingsRecord]]:
    """Each line's own JSON and its record, in the order they were measured.

    Raises UserError where there is no such file, or none or not all of its lines hold a record; a
    torn last line after valid ones is a TornLine warning."""
    path = directory / RECORDS
    check_directory(directory)
    if not path.is_file():
        raise UserError(
            f"{directory}: no {RECORDS} in it, so it is not a result directory; `ldt-bench run`"
            " makes one"
        )
    number = 0
    for number, data in _lines(path):
        version = data.get("schema_version")
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise UserError(
                f"{path}:{number}: schema version {version} is newer than this ldt-bench's "
                f"{SCHEMA_VERSION}; upgrade it to read this result"
            )
        try:
            record = _ADAPTER.validate_python(data)
        except ValidationError as error:
            raise UserError(f"{path}:{number}: not a record: {first_problem(error)}") from None
        yield data, record
    if not number:
        raise UserError(
            f"{path}: holds no record; was the run stopped before its first point? "
            f"`ldt-bench run --resume {directory}` goes on with it"
        )


def first_problem(error: ValidationError) -> str:
    """Where the first problem of a file's content is, and what."""
    first = error.errors(include_url=False)[0]
    return ": ".join(filter(None, [".".join(str(p) for p in first["loc"]), first["msg"]]))


def read_suite(directory: Path) -> Suite:
    """The suite a result was made with.  Raises UserError, EnvironmentFault."""
    path = directory / SUITE
    if not path.is_file():
        raise UserError(f"{directory}: no readable {SUITE}; `ldt-bench run` writes it")
    try:
        return Suite.model_validate_json(read_bytes(path))
    except ValidationError as error:
        raise UserError(f"{path}: damaged, or of another version: {first_problem(error)}") from None


def read_rounds(directory: Path) -> list[Round]:
    """The lines of samples.jsonl; none where it is not there.  Raises UserError."""
    path, rounds = directory / SAMPLES, []
    if not path.is_file():
        return rounds
    for number, line in _lines(path):
        try:
            rounds.append(Round.model_validate(line))
        except ValidationError as error:
            raise UserError(
                f"{path}:{number}: not a round of samples: {first_problem(error)}"
            ) from None
    return rounds


def read_bytes(path: Path) -> bytes:
    """Raises EnvironmentFault where a file that is there cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise EnvironmentFault(
            f"{path}: cannot be read: {(error.strerror or str(error)).lower()}"
        ) from None


def write_whole(path: Path, text: str) -> None:
    """Write a file so that whoever reads it, or a crash, finds the old one or the new one whole.
    Raises OSError."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(part, "w", encoding="utf-8", errors="replace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def point_records(records: list[PointRecord | CeilingsRecord]) -> list[PointRecord]:
    """The points, each by its last record: what failed is measured again on resume.  One that
    several cards measured is there once for each; a failure does not stand beside that."""
    points = [r for r in records if isinstance(r, PointRecord)]
    by_card = {(r.fingerprint, r.environment.device_uuid_hash): r for r in points}
    last = {r.fingerprint: r for r in points}
    measured = {r.fingerprint for r in by_card.values() if r.outcome in MEASURED}
    return [
        r
        for r in by_card.values()
        if (r.outcome in MEASURED if r.fingerprint in measured else r is last[r.fingerprint])
    ]


def on_one_card(records: list[PointRecord]) -> list[PointRecord]:
    """Points that no group of ranks measured: those that say something of one card."""
    return [record for record in records if not record.on_several_ranks]


def ceilings_record(records: list[PointRecord | CeilingsRecord]) -> CeilingsRecord | None:
    """The last successful ceilings of one process."""
    return _last_ceilings(records, None)


def group_ceilings(records: Records) -> dict[int, CeilingsRecord]:
    """Ranks -> their last successful ceilings."""
    every = {r.ranks for r in records if isinstance(r, CeilingsRecord) and r.ranks is not None}
    found = {ranks: _last_ceilings(records, ranks) for ranks in sorted(every)}
    return {ranks: record for ranks, record in found.items() if record is not None}


def card_ceilings(records: Records) -> dict[str | None, CeilingsRecord]:
    """Hash of a card -> its last successful ceilings."""
    ceilings = [r for r in records if isinstance(r, CeilingsRecord) and r.ranks is None]
    return {r.environment.device_uuid_hash: r for r in ceilings if r.outcome == "ok"}


def _last_ceilings(records: Records, ranks: int | None) -> CeilingsRecord | None:
    ceilings = [r for r in records if isinstance(r, CeilingsRecord) and r.ranks == ranks]
    return next((r for r in reversed(ceilings) if r.outcome == "ok"), None)


class Store:
    """Appends to one result directory, under its lock.  Use as a context manager."""

    def __init__(self, directory: Path):
        self.directory = directory
        self._lock: Any = None

    def __enter__(self) -> "Store":
        """Raises UserError where another process writes here, EnvironmentFault where nothing can be
        written."""
        with disk_faults(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.directory / ".lock", "w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise UserError(f"{self.directory}: another ldt-bench is writing here") from None
        try:
            for name in (RECORDS, SAMPLES):
                _cut_torn_line(self.directory / name)
        except BaseException:
            self._lock.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._lock.close()

    def append_record(self, record: PointRecord | CeilingsRecord) -> None:
        self._append(RECORDS, record.model_dump(mode="json"))

    def append_samples(
        self, fingerprint: str, stage: str, samples_s: list[float], environment: str | None = None
    ) -> None:
        """One round of a stage of a point.  environment: the digest of where it was taken."""
        self._append(
            SAMPLES,
            {
                "fingerprint": fingerprint,
                "stage": stage,
                "samples_s": samples_s,
                "environment": environment,
            },
        )

    def append_log(self, label: str, text: bytes) -> None:
        """What the worker printed, if anything, under the job's label."""
        if text.strip():
            with disk_faults(self.directory), open(self.directory / WORKER_LOG, "ab") as file:
                file.write(f"== {label}\n".encode(errors="replace") + text + b"\n")

    def records(self) -> list[PointRecord | CeilingsRecord]:
        """Records so far; none in a fresh directory."""
        path = self.directory / RECORDS
        return read_records(self.directory) if path.is_file() and path.stat().st_size else []

    def prior_samples(self, environment: str | None = None) -> dict[str, dict[str, list[float]]]:
        """fingerprint -> stage -> samples already taken, in that environment where one is given: a
        record's samples are all of one."""
        prior: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for taken in read_rounds(self.directory):
            if environment is None or taken.environment in (None, environment):
                prior[taken.fingerprint][taken.stage] += taken.samples_s
        return prior

    def _append(self, name: str, data: dict[str, Any]) -> None:
        with disk_faults(self.directory), open(self.directory / name, "ab") as file:
            file.write(json.dumps(data, separators=(",", ":")).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


@contextlib.contextmanager
def disk_faults(path: Path, *, measured: bool = True) -> Iterator[None]:
    """Turn a full or read-only disk into EnvironmentFault, a wrong path into UserError.

    measured: there may be results already, and they are said to be kept."""
    try:
        yield
    except OSError as error:
        reason = f"{path}: {(error.strerror or str(error)).lower()}"
        if error.errno in (errno.EEXIST, errno.ENOTDIR):
            raise UserError(f"{reason}: expected a directory") from None
        kept = measured and any((Path(path) / name).exists() for name in (RECORDS, SAMPLES))
        said = "; what was measured before is kept" if kept else ""
        raise EnvironmentFault(reason + said) from None


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of a JSON-lines file.  Raises UserError for a broken line that is not
    the last."""
    raw = read_bytes(path).split(b"\n")
    torn = raw.pop()  # empty where the file ends with a newline
    for number, line in enumerate(raw, start=1):
        data = _parse(line)
        if data is None:
            if number == len(raw) and not torn and number > 1:
                torn = line
                break
            raise UserError(
                f"{path}:{number}: not a JSON object; the file is damaged or not ldt-bench's"
            )
        yield number, data
    if (
        torn and (whole := _parse(torn)) is not None
    ):  # only the newline is missing: an editor took it off
        yield len(raw) + 1, whole
    elif torn:
        if len(raw) == 0:
            raise UserError(f"{path}: holds no whole record, only a torn line")
        warnings.warn(
            f"{path}: the last line is torn (killed while writing) and left out",
            TornLine,
            stacklevel=3,
        )


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        data = json.loads(line)
        if b"\\ud" in line.lower():
            json.dumps(
                data, ensure_ascii=False
            ).encode()  # half of a surrogate pair can be read, and never shown
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def _cut_torn_line(path: Path) -> None:
    if not path.exists():
        return
    if not path.is_file():
        raise UserError(f"{path}: expected a file, found a directory")
    raw = read_bytes(path)
    *lines, tail = raw.split(b"\n")
    if tail and _parse(tail) is not None:
        with disk_faults(path), open(path, "ab") as file:
            file.write(b"\n")
        return
    whole = len(raw) - len(tail)
    if not tail and lines and _parse(lines[-1]) is None:
        whole -= len(lines[-1]) + 1
    if whole != len(raw):
        warnings.warn(
            f"{path}: cut a torn last line of {len(raw) - whole} bytes", TornLine, stacklevel=3
        )
        with disk_faults(path), open(path, "r+b") as file:
            file.truncate(whole)
            os.fsync(file.fileno())
