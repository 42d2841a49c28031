"""Several results as one.  Whatever the order they are given in, and however often they are merged,
the bytes are the same."""

import json
import warnings
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from bench.core.errors import UserError
from bench.core.specs.suite import Suite
from bench.results.environment import Environment
from bench.results.records import Record
from bench.results.store import (
    RECORDS,
    SAMPLES,
    SUITE,
    check_directory,
    disk_faults,
    read_records,
    read_suite,
    write_whole,
)
from bench.results.video import MEASURED

MERGED = "merged"
OF_ALL = {"name", "description", "points", "ceilings", "calibrate", "on_cpu", "shard"}
"""Fields of a merged suite that follow from all of them; the rest are the leading one's."""


def merge(
    directories: list[Path], out: Path | None = None, *, mix: bool = False, kinds: bool = False
) -> Path:
    """A new result with the records of all -> its directory, beside the first by default.

    Records are in the order in which they were measured.  A point that two cards measured is there
    twice; a failure does not stand beside another's measurement.  The suite is that of the first
    that can be calibrated, with everybody's points.  mix: environments and dtypes may differ;
    kinds: kinds of card too.  Raises UserError where they do and may not, and for a directory that
    is there already; EnvironmentFault for a disk."""
    read = [(read_suite(d), read_records(d)) for d in directories]
    _check_alike(directories, read, mix, kinds)
    stem = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}_{MERGED}"
    out = out or directories[0].absolute().parent / stem
    if out.exists():
        raise UserError(f"{out}: there already; merged results go into a directory of their own")
    with disk_faults(out, measured=False):
        out.mkdir(parents=True)
        records = _without_repeated_failures([r for _, records in read for r in records])
        write_whole(out / RECORDS, _lines(_in_order(records)))
        write_whole(out / SAMPLES, _samples(directories))
        write_whole(out / SUITE, joined([suite for suite, _ in read]).model_dump_json(indent=1))
    return out


def _check_alike(
    directories: list[Path], read: list[tuple[Suite, list[Record]]], mix: bool, kinds: bool
) -> None:
    """Raises UserError with what is unlike; where that is allowed, warns."""
    for directory in directories:
        check_directory(directory)
    first_suite, first_records = read[0]
    first = first_records[-1].environment
    for directory, (suite, records) in zip(directories, read, strict=True):
        for environment in (record.environment for record in records):
            if not kinds and _kind(environment) != _kind(first):
                raise UserError(
                    f"{directory}: measured on {environment.device_name}, and {directories[0]} on "
                    f"{first.device_name}; one kind of card at a time"
                )
        unlike = list(dict.fromkeys(d for r in records for d in first.differences(r.environment)))
        if suite.dtype != first_suite.dtype:
            unlike.append(f"dtype {first_suite.dtype} / {suite.dtype}")
        if not unlike:
            continue
        said = f"{directory}: unlike {directories[0]}: {'; '.join(unlike)}"
        if not mix:
            raise UserError(f"{said}; --mix-environments merges them all the same")
        warnings.warn(f"{said}; each record says its own", stacklevel=3)


def _kind(environment: Environment) -> tuple[str, str]:
    return environment.gpu, environment.device_name


def joined(suites: list[Suite]) -> Suite:
    """One suite with everybody's points; of shards of one suite, that suite."""
    whole = [suite.model_copy(update={"shard": None}) for suite in suites]
    if all(suite == whole[0] for suite in whole):
        return whole[0]
    leading = min(whole, key=lambda suite: (not suite.calibrate, _rest(suite)))
    every = {_canonical(entry.model_dump(mode="json")): entry for s in whole for entry in s.points}
    return leading.model_copy(
        update={
            "name": MERGED,
            "description": "Several results as one",
            "points": tuple(entry for _, entry in sorted(every.items())),
            "ceilings": any(suite.ceilings for suite in whole),
            "calibrate": True,
            "on_cpu": None,
        }
    )


def _rest(suite: Suite) -> str:
    return _canonical(suite.model_dump(mode="json", exclude=OF_ALL))


def _canonical(data: object) -> str:
    return json.dumps(data, sort_keys=True)


def _in_order(records: Iterable[Record]) -> list[Record]:
    """Each once, as they were measured."""
    unique = {record.model_dump_json(): record for record in records}
    return [
        record
        for _, record in sorted(
            unique.items(), key=lambda item: (item[1].started_utc, item[1].fingerprint, item[0])
        )
    ]


def _lines(records: Iterable[Record]) -> str:
    lines = (record.model_dump(mode="json") for record in records)
    return "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)


def _samples(directories: list[Path]) -> str:
    """Of all, each round once: those of one stage keep their order within a result."""
    every = {}
    for directory in directories:
        path = directory / SAMPLES
        if not path.is_file():
            continue
        whole = path.read_text(errors="replace")
        lines = whole.splitlines() if whole.endswith("\n") else whole.splitlines()[:-1]
        every |= dict.fromkeys(lines)
    return "".join(line + "\n" for line in sorted(every))


def _without_repeated_failures(records: list[Record]) -> list[Record]:
    """A failure or a skip of one result does not stand over the measurement of another."""
    measured = {r.fingerprint for r in records if r.outcome in MEASURED}
    return [r for r in records if r.outcome in MEASURED or r.fingerprint not in measured]
