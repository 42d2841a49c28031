"""The ledger of published claims: each held against counts, and where time matters against a
calibration of that very GPU.

Counted claims need no calibration and no torch.  A claim about a GPU that was not measured cannot
be told, unless counting alone bounds it: at 100 % of the datasheet a card makes no more than its
rate over the FLOPs.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from bench.core.errors import UserError, brief, nearest
from bench.core.load import load, load_point, names
from bench.core.quantity import Quantity
from bench.core.reference import MODEL, WORKLOAD
from bench.core.specs.claim import ChainCheck, Claim, Claimed, LatencyTableCheck
from bench.core.specs.point import Point
from bench.studies.claims.checks import finder
from bench.studies.claims.latencies import TableRow, read_table
from bench.studies.claims.verdict import (
    Evidence,
    Finding,
    Judged,
    how_to_tell,
    judged,
    unheld,
)

if TYPE_CHECKING:
    from bench.calibrate.calibration import Calibration


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
    """What `ldt-bench claims` says."""

    judged: list[Judged]
    left_out: list[tuple[str, str]]
    """Rows of tables that are no claims: id and why."""


def evidence_of(directory: Path) -> Evidence:
    """Raises UserError where the result cannot be calibrated."""
    from bench.calibrate.make import load_or_calibrate

    return evidence_from(load_or_calibrate(directory))


def evidence_from(calibration: "Calibration") -> Evidence:
    """What a calibration can say, counts kept."""
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


class ChainRow(Protocol):
    """A row of the pencil estimate, as bench.studies.pencil.rows.Row has it."""

    id: str
    quantity: str
    printed: float | None
    computed: float | None
    corrected: float | None
    calibrated: Quantity | None
    unit: str
    note: str


Chain = Callable[[Quantity | None], Sequence[ChainRow]]
"""The pencil estimate's rows, from measured minutes of video per GPU-hour where there are any.  The
caller brings it, since no study imports another."""


def ledger(wanted: list[str], chain: Chain, evidence: Evidence | None = None) -> Ledger:
    """Judge claims: names in configs/claims, paths to YAML files, or ids of single rows (A11,
    L0674).  None: all.

    Raises UserError for what is none of these."""
    if not wanted:
        entries, left_out = _entries(names("claims"), chain, evidence)
        return Ledger([entry.judge() for entry in entries], left_out)
    chosen: list[Entry] = []
    left_out: list[tuple[str, str]] = []
    presets: tuple[list[Entry], list[tuple[str, str]]] | None = None
    for name in wanted:
        if name in names("claims") or name.endswith((".yaml", ".yml")) or "/" in name:
            entries, out = _entries([name], chain, evidence)
            chosen, left_out = chosen + entries, left_out + out
            continue
        presets = presets or _entries(names("claims"), chain, evidence)
        found = [entry for entry in presets[0] if entry.id == name]
        if not found:
            reasons = dict(presets[1])
            near = nearest(name, [*names("claims"), *(entry.id for entry in presets[0])])
            raise UserError(
                f"claim {name}: left out of its table: {reasons[name]}"
                if name in reasons
                else (
                    f"unknown claim {brief(name)}{near} (`ldt-bench list claims` shows all; an id"
                    " such as A11 and a path to a YAML file are taken too)"
                )
            )
        chosen += found
    return Ledger([entry.judge() for entry in chosen], left_out)


def _entries(
    claims: list[str], chain: Chain, evidence: Evidence | None
) -> tuple[list[Entry], list[tuple[str, str]]]:
    entries: list[Entry] = []
    left_out: list[tuple[str, str]] = []
    for name in claims:
        claim = load(Claim, name)
        if isinstance(claim.check, ChainCheck):
            entries += _chain(claim, claim.check, chain, evidence)
        elif isinstance(claim.check, LatencyTableCheck):
            rows, out = read_table(claim.check, _folder(name))
            entries += [_table_entry(claim, row, evidence) for row in rows]
            left_out += out
        else:
            entries.append(
                Entry(claim.name, claim.description, claim, claim.claimed, finder(claim, evidence))
            )
    return entries, left_out


def _folder(name: str) -> Path:
    """Where a claim's table lies: beside the user's file; of a preset in configs/."""
    return (
        Path(name).parent
        if name.endswith((".yaml", ".yml")) or "/" in name
        else Path(str(resources.files("configs")))
    )


def _table_entry(claim: Claim, row: TableRow, evidence: Evidence | None) -> Entry:
    return Entry(
        row.id,
        row.quantity,
        claim,
        Claimed(value=row.seconds, unit="s"),
        lambda: row.find(evidence),
    )


# The pencil chain.


def _chain(
    claim: Claim, check: ChainCheck, chain: Chain, evidence: Evidence | None
) -> Iterator[Entry]:
    rows = chain(None)
    for field in ("rows", "inputs", "at_most", "at_least"):
        known = {r.id if field == "rows" else _key(r) for r in rows}
        for word in getattr(check, field):
            if word not in known:
                raise UserError(
                    f"claim {claim.name}: check.{field}: {word!r} is no row of the"
                    f" chain{nearest(word, known)}"
                )

    @cache
    def calibrated() -> tuple[Sequence[ChainRow], Finding] | None:
        if evidence is None or evidence.gpu != check.gpu:
            return None
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
                lambda index=index, row=row: _row(check, row, index, calibrated(), evidence),
            )


def _key(row: ChainRow) -> str:
    """As a claim names a row: A9 and A8 both have a "training of Sora, low"."""
    return f"{row.id} {row.quantity}"


def _row(
    check: ChainCheck,
    row: ChainRow,
    index: int,
    calibrated: tuple[Sequence[ChainRow], Finding] | None,
    evidence: Evidence | None,
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
        lacking = unheld(evidence, check.gpu) if calibrated is None else calibrated[1].why
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
