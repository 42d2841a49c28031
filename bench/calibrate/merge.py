"""Several results of one card as one, so that their points are fitted together: a short run after another adds to it."""

from datetime import UTC, datetime
from pathlib import Path

from bench.core.errors import UserError
from bench.core.records import CeilingsRecord, PointRecord
from bench.core.spec import Suite
from bench.core.store import SUITE, Store, disk_faults, read_records, read_suite, write_whole

MERGED = "merged"


def merge(directories: list[Path], out: Path | None = None) -> Path:
    """A new result with the records of all, in the order given -> its directory, beside the first by default.

    Where a point was measured twice the later record counts, as after a resume.  The suite is that of the first result
    that can be calibrated, with everybody's points.  Raises UserError for results of several cards, and for a directory
    that is there already; EnvironmentFault for a disk."""
    read = [(directory, read_suite(directory), read_records(directory)) for directory in directories]
    cards = {directory: (records[-1].environment.gpu, records[-1].environment.device_name) for directory, _, records in read}
    for directory, card in cards.items():
        if card != cards[directories[0]]:
            raise UserError(f"{directory}: measured on {card[1]}, and {directories[0]} on {cards[directories[0]][1]}; one "
                            "card at a time")
    suite = _joined([suite for _, suite, _ in read])
    out = out or directories[0].absolute().parent / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}_{MERGED}"
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
    points = list({entry.model_dump_json(): entry for suite in (leading, *suites) for entry in suite.points}.values())
    return leading.model_copy(update={
        "name": MERGED, "description": f"{' and '.join(suite.name for suite in suites)} as one", "points": tuple(points),
        "ceilings": any(suite.ceilings for suite in suites), "calibrate": True, "on_cpu": None})


def _without_repeated_failures(records: list[PointRecord | CeilingsRecord]) -> list[PointRecord | CeilingsRecord]:
    """A failure or a skip of one result does not stand over the measurement of another."""
    measured = {r.fingerprint for r in records if r.outcome in ("ok", "unstable")}
    return [r for r in records if r.outcome in ("ok", "unstable") or r.fingerprint not in measured]
