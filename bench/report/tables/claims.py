"""The ledger of claims, for people and as the document of `claims --json`."""

from collections.abc import Iterable
from math import inf
from typing import Any

from bench.core.quantity import Quantity
from bench.core.sources import source_url
from bench.core.specs.claim import TABLES
from bench.report.numbers import printed
from bench.report.tables.table import DASH, Cell, Table, claimed, number, numbers, table
from bench.studies.claims.ledger import Ledger
from bench.studies.claims.verdict import CANNOT_TELL, HOLDS, Judged

FIGURES = [claimed("claimed"), numbers("ours"), numbers("ours / claimed")]


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
        "source": _source(j),
        "source_url": source_url(_source(j)),
    }


def _source(j: Judged) -> str:
    """Who says so: a table's row by itself, another claim by its file."""
    return j.finding.conditions.get("as_printed", {}).get("source", j.claim.source)


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


def claims_table(document: dict[str, Any]) -> Table:
    """Every claim with its reason, from the ledger's document."""
    rows = []
    for c in document["claims"]:
        name = c["quantity"] if c["id"] == c["claim"] else f"{c['id']}: {c['quantity']}"
        source = Cell(c["source"], link=c["source_url"])
        rows.append([name, *_figures(c), c["verdict"], c["why"], source])
    columns = ["claim", *FIGURES, "verdict", "why", "source"]
    return table("Published claims against ours", columns, rows)


def claims_tables(ledger: Ledger) -> list[Table]:
    """One for each table of claims, one for the rest, and the reasons, which many rows share."""
    whys = dict.fromkeys(j.why for j in ledger.judged)
    reasons = {why: str(i) for i, why in enumerate(whys, 1)}
    groups: dict[str, list[Judged]] = {}
    for j in ledger.judged:
        groups.setdefault(j.claim.name if j.claim.check.kind in TABLES else "", []).append(j)
    return [
        *(_group_table(name, group, reasons) for name, group in groups.items()),
        table("Why", ["#", "reason"], [(i, why) for why, i in reasons.items()]),
    ]


def _group_table(name: str, group: list[Judged], reasons: dict[str, str]) -> Table:
    claim = group[0].claim
    rows = [[j.id, j.quantity, *_figures(_document(j)), j.verdict, reasons[j.why]] for j in group]
    return table(
        f"{name}: {claim.statement}" if name else "Claims, each against ours",
        ["claim", "quantity", *FIGURES, "verdict", numbers("why")],
        rows,
        note=claim.source if name else "",
    )


def _figures(claim: dict[str, Any]) -> list[Cell]:
    """Claimed, ours and their ratio, from a claim's document."""
    theirs, ours, ratio = claim["claimed"], claim["ours"], claim["ratio"]
    source = f"{claim['source']}; accepted within {claim['tolerance']:.0%}"
    cells = [Cell(f"{_between(theirs)} {claim['unit']}", _value(theirs), source)]
    untold, provenance = Cell(DASH, how="cannot be told from here"), claim["provenance"]
    cells.append(
        Cell(f"{_between(ours)} ({provenance})", ours["value"], provenance=provenance)
        if ours
        else untold
    )
    cells.append(
        number(ratio["value"], printed, "ours over claimed", provenance) if ratio else untold
    )
    return cells


def _value(quantity: float | dict[str, float | None]) -> float | None:
    """The number to sort by: a range's lower end, or its only one."""
    if not isinstance(quantity, dict):
        return quantity
    return next((q for q in (quantity[e] for e in ("value", "low", "high")) if q is not None), None)


def _between(quantity: float | dict[str, float | None]) -> str:
    """A value, with its ends where it has any; an open end is a bound."""
    if not isinstance(quantity, dict):
        return printed(quantity)
    value, low, high = (quantity[end] for end in ("value", "low", "high"))
    if high is None:
        return f"at least {printed(low)}"
    if not low:
        return f"at most {printed(high)}"
    if low == high:
        return printed(low)
    ends = f"{printed(low)} to {printed(high)}"
    return ends if value is None else f"{printed(value)} ({ends})"


def claims_lines(ledger: Ledger) -> list[str]:
    """The number of each verdict, the rows that are no claims, and the commands that would tell the
    rest."""
    counted = verdicts(ledger)
    lines = [", ".join(f"{n} {verdict}" for verdict, n in counted.items())]
    if ledger.left_out:
        lines.append(
            f"{len(ledger.left_out)} rows of tables are no claims (several GPUs, no such model"
            " here, or conditions not known): --json gives each with its reason"
        )
    lines += _source_lines(ledger)
    commands = dict.fromkeys(j.finding.command for j in ledger.judged if j.finding.command)
    return lines + [f"what would tell: {command}" for command in commands]


def _source_lines(ledger: Ledger) -> list[str]:
    """Each address once, with the claims that it is the source of."""
    of: dict[str, list[str]] = {}
    for j in ledger.judged:
        url = source_url(_source(j))
        if url is not None:
            of.setdefault(url, []).append(j.id)
    return [f"source of {_some(dict.fromkeys(ids))}: {url}" for url, ids in of.items()]


def _some(ids: Iterable[str]) -> str:
    first, *others = ids
    return first if not others else f"{first} and {len(others)} more"
