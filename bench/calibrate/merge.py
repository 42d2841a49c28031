"""Several results of one card as one, so that their points are fitted together."""

from datetime import UTC, datetime
from pathlib import Path

from bench.core.errors import UserError
from bench.core.specs.suite import Suite
from bench.results.records import Record
from bench.results.store import SUITE, Store, disk_faults, read_records, read_suite, write_whole
from bench.results.video import MEASURED

MERGED = "merged"


def merge(directories: list[Path], out: Path | None = None) -> Path:
    """A new result with the records of all, in the order given -> its directory, beside the first
    by default.

    Where a point was measured twice the later record counts, as after a resume.  The suite is that
    of the first result that can be calibrated, with everybody's points.  Raises UserError for
    results of several cards, and for a directory that is there already; EnvironmentFault for a
    disk."""
    read = [
        (directory, read_suite(directory), read_records(directory)) for directory in directories
    ]
    first = read[0][2][-1].environment
    for directory, _, records in read:
        for card in (record.environment for record in records):
            if (card.gpu, card.device_name) != (first.gpu, first.device_name):
                raise UserError(
                    f"{directory}: measured on {card.device_name}, and {directories[0]} on "
                    f"{first.device_name}; one card at a time"
                )
    suite = _joined([suite for _, suite, _ in read])
    stem = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}_{MERGED}"
    out = out or directories[0].absolute().parent / stem
    if out.exists():
        raise UserError(f"{out}: there already; merged results go into a directory of their own")
    with Store(out) as store:
        for record in _without_repeated_failures([r for _, _, records in read for r in records]):
            store.append_record(record)
    with disk_faults(out):
        write_whole(out / SUITE, suite.model_dump_json(indent=1))
    return out


def _joined(suites: list[Suite]) -> Suite:
    leading = next((suite for suite in suites if suite.calibrate), suites[0])
    every = [entry for suite in (leading, *suites) for entry in suite.points]
    points = tuple({entry.model_dump_json(): entry for entry in every}.values())
    return leading.model_copy(
        update={
            "name": MERGED,
            "description": f"{' and '.join(suite.name for suite in suites)} as one",
            "points": points,
            "ceilings": any(suite.ceilings for suite in suites),
            "calibrate": True,
            "on_cpu": None,
        }
    )


def _without_repeated_failures(records: list[Record]) -> list[Record]:
    """A failure or a skip of one result does not stand over the measurement of another."""
    measured = {r.fingerprint for r in records if r.outcome in MEASURED}
    return [r for r in records if r.outcome in MEASURED or r.fingerprint not in measured]
