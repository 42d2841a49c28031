"""The ledger of claims, for people and as the document of `claims --json`."""

from math import inf
from typing import Any

from rich.table import Table

from bench.core.quantity import Quantity
from bench.core.specs.claim import TABLES
from bench.report.tables.common import table
from bench.studies.claims.ledger import Ledger
from bench.studies.claims.verdict import CANNOT_TELL, HOLDS, Judged, ends


def claims_document(ledger: Ledger) -> dict[str, Any]:
    """Keys may be added, never renamed.  Null: no figure of ours, or an end that is open."""
    return {
        "claims": [_document(j) for j in ledger.judged],
        "verdicts": verdicts(ledger),
        "left_out": [{"id": id_, "why": why} for id_, why in ledger.left_out],
    }


def _document(j: Judged) -> dict[str, Any]:
    c, f = j.claimed, j.finding
    return {
        "id": j.id,
        "claim": j.claim.name,
        "quantity": j.quantity,
        "statement": j.claim.statement,
        "claimed": (
            c.value if c.value is not None else {"value": None, "low": c.low, "high": c.high}
        ),
        "unit": c.unit,
        "ours": _interval(f.ours),
        "ratio": _interval(j.ratio),
        "verdict": j.verdict,
        "why": j.why,
        "provenance": f.ours.provenance if f.ours else None,
        "tolerance": j.claim.tolerance,
        "command": f.command,
        "conditions": f.conditions,
        "warnings": list(f.warnings),
        "source": f.conditions.get("as_printed", {}).get("source", j.claim.source),
    }


def _interval(ours: Quantity | None) -> dict[str, float | None] | None:
    if ours is None:
        return None
    return {
        end: None if (x := getattr(ours, end)) == inf else x for end in ("value", "low", "high")
    }


def verdicts(ledger: Ledger) -> dict[str, int]:
    return {
        HOLDS: sum(j.verdict == HOLDS for j in ledger.judged),
        "off": sum(j.is_off for j in ledger.judged),
        CANNOT_TELL: sum(j.verdict == CANNOT_TELL for j in ledger.judged),
    }


def claims_tables(ledger: Ledger) -> list[Table]:
    """One for each table of claims, one for the rest, and the reasons, which many rows share."""
    reasons = {
        why: number for number, why in enumerate(dict.fromkeys(j.why for j in ledger.judged), 1)
    }
    groups: dict[str, list[Judged]] = {}
    for j in ledger.judged:
        groups.setdefault(j.claim.name if j.claim.check.kind in TABLES else "", []).append(j)
    out = [_table(name, group, reasons) for name, group in groups.items()]
    return [
        *out,
        table("Why", "#", "reason", rows=[(str(number), why) for why, number in reasons.items()]),
    ]


def _table(name: str, group: list[Judged], reasons: dict[str, int]) -> Table:
    claim = group[0].claim
    title = (
        f"{name}: {claim.statement} (claimed: {claim.source})"
        if name
        else "Claims, each against ours"
    )
    return table(
        title,
        "claim",
        "what",
        "#claimed",
        "#ours",
        "#ratio",
        "verdict",
        "#why",
        rows=[
            (
                j.id,
                j.quantity,
                f"{_claimed(j)} {j.claimed.unit}",
                _ours(j.finding.ours),
                "–" if j.ratio is None else _number(j.ratio.value),
                j.verdict,
                str(reasons[j.why]),
            )
            for j in group
        ],
    )


def _claimed(j: Judged) -> str:
    low, high = ends(j.claimed)
    if low == high:
        return _number(low)
    return (
        f"at most {_number(high)}"
        if not low
        else f"at least {_number(low)}"
        if high == inf
        else f"{_number(low)} to {_number(high)}"
    )


def _ours(ours: Quantity | None) -> str:
    if ours is None:
        return "–"
    if ours.low == ours.high:
        text = _number(ours.value)
    elif ours.high == inf:
        text = f"at least {_number(ours.low)}"
    else:
        text = (
            f"at most {_number(ours.high)}"
            if not ours.low
            else f"{_number(ours.value)} ({_number(ours.low)} to {_number(ours.high)})"
        )
    return f"{text} {ours.provenance}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e7 else f"{value:,.4g}"


def claims_lines(ledger: Ledger) -> list[str]:
    """How many of each verdict, what was no claim, and what would tell the rest."""
    counted = verdicts(ledger)
    lines = [", ".join(f"{n} {verdict}" for verdict, n in counted.items())]
    if ledger.left_out:
        lines.append(
            f"{len(ledger.left_out)} rows of tables are no claims (several GPUs, no such model"
            " here, or conditions not known): --json gives each with its reason"
        )
    commands = dict.fromkeys(j.finding.command for j in ledger.judged if j.finding.command)
    return lines + [f"what would tell: {command}" for command in commands]
