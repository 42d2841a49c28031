"""What `doctor` and `run --dry-run` print."""

from typing import Any

from rich.table import Table

from bench.core.units import seconds
from bench.report.tables.common import quantity, table
from bench.studies.acceptance.verdict import Acceptance


def acceptance_table(device_name: str, acceptance: Acceptance) -> Table:
    return table(
        f"{device_name}: {acceptance.verdict} (measured, against published and datasheet figures)",
        "check",
        "verdict",
        "measured",
        "expected",
        "why",
        rows=[
            (c.name, c.verdict, c.measured or "–", c.expected or "–", c.why or "")
            for c in acceptance.checks
        ],
    )


def acceptance_document(environment: Any, acceptance: Acceptance) -> dict[str, Any]:
    """`doctor --json`."""
    return {
        **acceptance.as_dict(),
        "gpu": environment.gpu,
        "device_name": environment.device_name,
        "device": environment.device,
        "provenance": "measured",
    }


def plan_table(plan: dict[str, Any]) -> Table:
    """From `run --dry-run`'s document."""
    left_out = {row["point"] for row in plan["skipped"]}
    return table(
        f"{plan['suite']} on {plan['gpu']}, predicted; nothing was measured",
        "point",
        "stages",
        "#time",
        "provenance",
        "note",
        rows=[
            (
                row["point"],
                " ".join(row["stages"]),
                (
                    "–"
                    if row["predicted_s"] is None
                    else (
                        f"{seconds(row['predicted_s'])} ({seconds(row['low_s'])} to"
                        f" {seconds(row['high_s'])})"
                    )
                ),
                row["provenance"] or "unknown",
                "over the budget" if row["point"] in left_out else "",
            )
            for row in plan["points"]
        ],
    )


def plan_line(plan: dict[str, Any]) -> str:
    total, cost = plan["total"], plan["cost_usd"]
    money = (
        "no price is known: give --price"
        if cost is None
        else f"{dollars(cost['value'])} ({dollars(cost['low'])} to {dollars(cost['high'])})"
    )
    unknown = f"; without {', '.join(plan['unknown'])}" if plan["unknown"] else ""
    return (
        f"total: {seconds(total['value'])} ({seconds(total['low'])} to {seconds(total['high'])}),"
        f" start and finish included{unknown}; {money}\nbasis: {plan['basis']}"
    )


def skipped_table(skipped: list[dict[str, Any]]) -> Table:
    """What a budget left out."""
    return table(
        "Left out by the budget",
        "point",
        "#predicted",
        "reason",
        rows=[
            (
                row["point"],
                "–" if row["predicted_s"] is None else seconds(row["predicted_s"]),
                row["reason"],
            )
            for row in skipped
        ],
    )


def spent_line(spent: dict[str, Any]) -> str:
    said = (
        "nothing was predicted"
        if spent["predicted_s"] is None
        else f"predicted {seconds(spent['predicted_s'])}"
    )
    usd = spent["usd"]
    money = (
        ""
        if usd is None
        else f", {dollars(usd['value'])}"
        + (
            ""
            if usd["low"] == usd["high"]
            else f" ({dollars(usd['low'])} to {dollars(usd['high'])})"
        )
    )
    return f"spent: {seconds(spent['wall_s'])} ({said}){money}"


def headline_lines(summary: dict[str, Any]) -> list[str]:
    """From `run`'s summary: the headline in words, and a warning where most of what it rests on is
    noise."""
    h, outcomes = summary["headline"], summary["outcomes"]
    words = (
        f"none: {summary['headline_missing']}"
        if h is None
        else (
            f"{quantity(h['minutes_per_gpu_hour'])} minutes of video per GPU-hour, {h['model']}"
            f" {h['workload']} {h['recipe']} on {h['gpu']} ({h['provenance']})"
        )
    )
    lines, measured = [f"headline: {words}"], outcomes["ok"] + outcomes["unstable"]
    if 2 * outcomes["unstable"] > measured:
        lines.append(
            f"warning: {outcomes['unstable']} of {measured} points are unstable: something else is"
            " running on this machine; stop it and measure again before believing these figures"
        )
    return lines


def dollars(value: float) -> str:
    return f"${value:.2f}" if value >= 1 else f"${value:.3g}"


def design_table(document: dict[str, Any]) -> Table:
    """From `plan`'s document."""
    return table(
        f"Points worth measuring for {document['for']} on {document['gpu']}, in order; nothing was"
        " measured",
        "point",
        "#takes",
        "#spent",
        "#prediction then known to",
        rows=[
            (
                row["point"],
                seconds(row["predicted_s"]),
                seconds(row["spent_s"]),
                f"±{1.645 * row['sigma']:.1%}",
            )
            for row in document["points"]
        ],
    )


def design_line(document: dict[str, Any]) -> str:
    """What it rests on, and a uniform sweep beside it.  90 % intervals to first order."""
    return (
        f"before: ±{1.645 * document['sigma_before']:.0%}; after {len(document['points'])} points:"
        f" ±{1.645 * document['sigma_after']:.1%}; in the same time without a plan:"
        f" ±{1.645 * document['sigma_unplanned']:.1%} (90 %, of the model's parameters"
        f" alone)\nbasis: {document['basis']}"
    )
