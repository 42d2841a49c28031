"""The ledger of published claims: each held against counts, and where time matters against a
calibration of that very GPU.

Counted claims need no calibration and no torch.  A claim about a GPU that was not measured cannot
be told, unless counting alone bounds it: at 100 % of the datasheet a card makes no more than its
rate over the FLOPs.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from bench.core.errors import UserError, brief, nearest
from bench.core.load import load, load_point, names
from bench.core.quantity import Quantity
from bench.core.reference import MODEL, WORKLOAD
from bench.core.row import Row
from bench.core.specs.claim import ChainCheck, Claim, Claimed, LatencyTableCheck
from bench.core.specs.point import Point
from bench.studies.claims.checks import finder
from bench.studies.claims.latencies import TableRow, read_table
from bench.studies.claims.verdict import (
    Evidence,
    Finding,
    Judged,
    Shelf,
    how_to_tell,
    judged,
    unheld,
)

if TYPE_CHECKING:
    from bench.calibrate.calibration import Calibration

Chain = Callable[[Quantity | None], list[Row]]
"""The published estimate row by row, given the measured minutes of video per GPU-hour (None without
a measurement).  `bench.studies.pencil.analytic.rows_from` is one."""


@dataclass(frozen=True)
class Entry:
    """A claim that can be judged: from a file of its own, or a row of a table."""

    id: str
    quantity: str
    claim: Claim
    claimed: Claimed
    find: Callable[[], Finding]

    def judge(self) -> Judged:
        return judged(self.id, self.quantity, self.claim, self.claimed, self.find())


@dataclass(frozen=True)
class Ledger:
    """The answer of `ldt-bench claims`."""

    judged: list[Judged]
    left_out: list[tuple[str, str]]
    """Rows of tables that are no claims: id and why."""


def evidence_of(directory: Path) -> Evidence:
    """Raises UserError where the result cannot be calibrated."""
    from bench.calibrate.make import load_or_calibrate

    return evidence_from(load_or_calibrate(directory))


def evidence_from(calibration: "Calibration") -> Evidence:
    """Evidence from a calibration; counts of points are kept."""
    from bench.calibrate.estimate import estimate

    first = calibration.default_recipe
    return Evidence(
        calibration.gpu,
        (first, *(name for name in calibration.recipes if name != first)),
        cache_by_subject(lambda point: estimate(point, calibration)),
    )


def cache_by_subject(estimate: Callable) -> Callable:
    """Counting a public model takes seconds, and tables ask for the same point again."""
    known: dict[str, object] = {}

    def cached(point: Point) -> object:
        if point.subject not in known:
            known[point.subject] = estimate(point)
        return known[point.subject]

    return cached


def ledger(
    wanted: list[str],
    chain: Chain,
    evidence: Evidence | None = None,
    published: Shelf | None = None,
) -> Ledger:
    """Judge claims: names in configs/claims, paths to YAML files, or ids of single rows (A11,
    L0674).  An empty list stands for all presets.  evidence: a calibration, which judges claims
    about its own card; published: what judges the others.

    Raises UserError for what is none of these."""
    shelf = replace(published or Shelf(), own=evidence)
    if not wanted:
        return _ledger_of(*_entries(names("claims"), chain, shelf))

    @cache
    def presets() -> tuple[list[Entry], list[tuple[str, str]]]:
        return _entries(names("claims"), chain, shelf)

    chosen: list[Entry] = []
    left_out: list[tuple[str, str]] = []
    for name in wanted:
        if name in names("claims") or _is_path(name):
            entries, out = _entries([name], chain, shelf)
            left_out += out
        else:
            entries = _rows_called(name, *presets())
        chosen += entries
    return _ledger_of(chosen, left_out)


def _ledger_of(entries: list[Entry], left_out: list[tuple[str, str]]) -> Ledger:
    return Ledger([entry.judge() for entry in entries], left_out)


def _rows_called(id_: str, entries: list[Entry], left_out: list[tuple[str, str]]) -> list[Entry]:
    """The rows with this id.  Raises UserError where there is none."""
    found = [entry for entry in entries if entry.id == id_]
    if found:
        return found
    reasons = dict(left_out)
    if id_ in reasons:
        raise UserError(f"claim {id_}: left out of its table: {reasons[id_]}")
    near = nearest(id_, [*names("claims"), *(entry.id for entry in entries)])
    raise UserError(
        f"unknown claim {brief(id_)}{near} (`ldt-bench list claims` shows all; an id such as A11"
        " and a path to a YAML file are taken too)"
    )


def _entries(
    claims: list[str], chain: Chain, shelf: Shelf
) -> tuple[list[Entry], list[tuple[str, str]]]:
    """-> the entries of these claims, and the rows of their tables that are left out."""
    entries: list[Entry] = []
    left_out: list[tuple[str, str]] = []
    for name in claims:
        claim = load(Claim, name)
        if isinstance(claim.check, ChainCheck):
            entries += _chain_entries(claim, claim.check, chain, shelf)
        elif isinstance(claim.check, LatencyTableCheck):
            rows, out = read_table(claim.check, _folder(name))
            entries += [_table_entry(claim, row, shelf) for row in rows]
            left_out += out
        else:
            entries.append(
                Entry(claim.name, claim.description, claim, claim.claimed, finder(claim, shelf))
            )
    return entries, left_out


def _is_path(name: str) -> bool:
    return name.endswith((".yaml", ".yml")) or "/" in name


def _folder(name: str) -> Path:
    """Where a claim's table lies: beside the user's file; that of a preset in configs/."""
    return Path(name).parent if _is_path(name) else Path(str(resources.files("configs")))


def _table_entry(claim: Claim, row: TableRow, shelf: Shelf) -> Entry:
    return Entry(
        row.id,
        row.quantity,
        claim,
        Claimed(value=row.seconds, unit="s"),
        lambda: row.find(shelf),
    )


# The published estimate, row by row.


def _chain_entries(claim: Claim, check: ChainCheck, chain: Chain, shelf: Shelf) -> Iterator[Entry]:
    rows = chain(None)
    _check_row_names(claim, check, rows)

    @cache
    def calibrated() -> tuple[list[Row], Finding] | None:
        evidence = shelf.of(check.gpu)
        if evidence is None:
            return None
        if evidence.chain is not None:
            return evidence.chain()
        point = load_point(MODEL, WORKLOAD, evidence.recipes[0])
        found = evidence.predict(point, lambda e: e.minutes_per_gpu_hour)
        return chain(found.ours), found

    for index, row in enumerate(rows):
        if row.id in check.rows and row.printed is not None:
            yield Entry(
                row.id,
                row.quantity,
                claim,
                Claimed(value=row.printed, unit=row.unit),
                lambda index=index, row=row: _row(check, row, index, calibrated(), shelf),
            )


def _check_row_names(claim: Claim, check: ChainCheck, rows: list[Row]) -> None:
    """Raises UserError for a name in the claim that no row has."""
    for field in ("rows", "inputs", "at_most", "at_least"):
        known = {row.id if field == "rows" else _key(row) for row in rows}
        for word in getattr(check, field):
            if word not in known:
                near = nearest(word, known)
                raise UserError(
                    f"claim {claim.name}: check.{field}: {word!r} is no row of the chain{near}"
                )


def _key(row: Row) -> str:
    """As a claim names a row: A9 and A8 both have a "training of Sora, low"."""
    return f"{row.id} {row.quantity}"


def _row(
    check: ChainCheck,
    row: Row,
    index: int,
    calibrated: tuple[list[Row], Finding] | None,
    shelf: Shelf,
) -> Finding:
    note = f"; {row.note}" if row.note else ""
    if _key(row) in check.inputs:
        return Finding(
            None, f"put in by hand: no count and no measurement of a card bears on it{note}"
        )
    interval = calibrated[0][index].calibrated if calibrated is not None else None
    if interval is not None:
        found = calibrated[1]
        return Finding(
            replace(interval, provenance=found.ours.provenance),
            found.why + note,
            found.judges,
            warnings=found.warnings,
        )
    most = _key(row) in check.at_most
    if row.corrected is not None and (most or _key(row) in check.at_least):
        lacking = unheld(shelf, check.gpu) if calibrated is None else calibrated[1].why
        bound = Quantity.at_most if most else Quantity.at_least
        return Finding(
            bound(row.corrected, "counted"),
            "counted, attention in full, at 100 % of the bf16 datasheet:"
            f" {'at most' if most else 'at least'} this; what a card reaches: {lacking}{note}",
            command=how_to_tell(check.gpu, "h100"),
        )
    if row.corrected is not None:
        return Finding(Quantity.exactly(row.corrected, "counted"), f"counted{note}")
    return Finding(
        Quantity.exactly(row.computed, "counted"),
        f"follows from the chain's own assumptions, which are not checked here{note}",
    )
