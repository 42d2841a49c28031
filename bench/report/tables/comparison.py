"""A comparison of results as a document, a table, and Markdown for a comment."""

from typing import Any

from rich.table import Table

from bench.core.errors import one_line
from bench.core.units import seconds
from bench.report.tables.common import table
from bench.studies.compare.verdict import Change, Comparison

COLUMNS = ("point", "stage", "#a", "#b", "#b / a", "#interval", "verdict")


def comparison_document(c: Comparison, a: list[str], b: str) -> dict[str, Any]:
    """`compare --json`.  a, b: the directories; a has several where b is held against a history."""
    return {
        "kind": c.kind,
        "a": a if c.kind == "history" else a[0],
        "b": b,
        "points": [vars(change) for change in c.changes],
        "typical": vars(c.typical) if c.typical else None,
        "verdict": c.verdict,
        "counts": c.counts,
        "only_a": c.only_a,
        "only_b": c.only_b,
        "threshold": c.threshold,
        "threshold_from": c.threshold_from,
        "floor": c.floor,
        "floor_from": c.floor_from,
        "drift": c.drift,
        "control": c.control,
        "code_version": {"a": c.code_a if c.kind == "history" else c.code_a[0], "b": c.code_b},
        "provenance": "measured",
        "warnings": c.warnings,
    }


def comparison_table(c: Comparison) -> Table:
    title = (
        "b / a, seconds of b over seconds of a (measured; intervals hold together with 95 %):"
        f" {c.verdict}"
    )
    return table(title, *COLUMNS, rows=_rows(c))


def comparison_lines(c: Comparison) -> list[str]:
    """What the table rests on, one line each."""
    counts = ", ".join(f"{n} {verdict}" for verdict, n in c.counts.items() if n)
    codes = ", ".join(dict.fromkeys(c.code_a))
    lines = [
        f"{c.verdict}: {counts}; SAME is within ±{c.threshold:.1%} ({c.threshold_from})",
        (
            f"noise floor {c.floor:.1%} ({c.floor_from}); the machine moved by {c.drift - 1:+.1%}"
            f" ({c.control})"
        ),
        f"code: a {codes}; b {c.code_b}",
    ]
    for side, only in (("a", c.only_a), ("b", c.only_b)):
        lines += [f"only in {side}: {o['point']} {o['stage']}: {o['why']}" for o in only]
    return lines


def comparison_markdown(c: Comparison) -> str:
    """A table for a comment on a change."""

    def cells(values: Any) -> str:
        return "| " + " | ".join(one_line(v).replace("|", "\\|") for v in values) + " |"

    rule = ["---:" if column.startswith("#") else "---" for column in COLUMNS]
    head, *notes = comparison_lines(c)
    return "\n".join(
        [
            f"**{head}**",
            "",
            cells(column.removeprefix("#") for column in COLUMNS),
            cells(rule),
            *map(cells, _rows(c)),
            "",
            *(f"- {one_line(line)}" for line in [*notes, *c.warnings]),
        ]
    )


def _rows(c: Comparison) -> list[tuple[str, ...]]:
    def row(change: Change) -> tuple[str, ...]:
        a, b = (seconds(v) if v is not None else "" for v in (change.a, change.b))
        return (
            change.point,
            change.stage,
            a,
            b,
            f"{change.ratio:.3f}",
            f"{change.low:.3f} to {change.high:.3f}",
            change.verdict,
        )

    typical = [("median of all", "", *row(c.typical)[2:])] if c.typical else []
    return [row(change) for change in c.changes] + typical
