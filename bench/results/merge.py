"""Several results as one.  Whatever the order they are given in, and however often they are merged,
the bytes are the same."""

import json
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench.core.errors import UserError
from bench.core.specs.suite import Suite
from bench.results.environment import Environment
from bench.results.store import (
    RECORDS,
    SAMPLES,
    SUITE,
    disk_faults,
    each_record,
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
    results = [_read(directory) for directory in directories]
    _check_alike(results, mix, kinds)
    stem = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}_{MERGED}"
    out = out or directories[0].absolute().parent / stem
    if out.exists():
        raise UserError(f"{out}: there already; merged results go into a directory of their own")
    with disk_faults(out, measured=False):
        out.mkdir(parents=True)
        lines = sorted({line for result in results for line in result.lines})
        write_whole(out / RECORDS, "".join(line.text for line in _measured_first(lines)))
        write_whole(out / SAMPLES, _samples(directories))
        suite = joined([result.suite for result in results])
        write_whole(out / SUITE, suite.model_dump_json(indent=1))
    return out


@dataclass(frozen=True, order=True)
class _Line:
    """A record, as far as its place among others needs it: in the order measured."""

    started_utc: str
    fingerprint: str
    text: str
    measured: bool


@dataclass(frozen=True)
class _Result:
    """One of those that are merged.  Records are many and large: only their lines are kept."""

    directory: Path
    suite: Suite
    lines: list[_Line]
    environments: list[Environment]
    """Each once."""


def _read(directory: Path) -> _Result:
    lines, environments = [], {}
    for data, record in each_record(directory):
        text = json.dumps(data, separators=(",", ":")) + "\n"
        measured = record.outcome in MEASURED
        lines.append(_Line(record.started_utc, record.fingerprint, text, measured))
        environments[record.environment.digest()] = record.environment
    return _Result(directory, read_suite(directory), lines, list(environments.values()))


def _measured_first(lines: list[_Line]) -> list[_Line]:
    """A failure or a skip of one result does not stand beside the measurement of another."""
    measured = {line.fingerprint for line in lines if line.measured}
    return [line for line in lines if line.measured or line.fingerprint not in measured]


def _check_alike(results: list[_Result], mix: bool, kinds: bool) -> None:
    """Raises UserError with what is unlike; where that is allowed, warns."""
    first = results[0]
    ours = first.environments[-1]
    for result in results:
        for theirs in result.environments:
            if not kinds and _kind(theirs) != _kind(ours):
                raise UserError(
                    f"{result.directory}: measured on {theirs.device_name}, and {first.directory}"
                    f" on {ours.device_name}; one kind of card at a time"
                )
        every = [d for theirs in result.environments for d in ours.differences(theirs)]
        unlike = list(dict.fromkeys(every))
        if result.suite.dtype != first.suite.dtype:
            unlike.append(f"dtype {first.suite.dtype} / {result.suite.dtype}")
        if not unlike:
            continue
        said = f"{result.directory}: unlike {first.directory}: {'; '.join(unlike)}"
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
