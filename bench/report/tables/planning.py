"""Plans and runs: the table of `run --dry-run`, the points of `plan`, the last lines of `run`."""

from typing import Any

from bench.core.units import minutes_an_hour, seconds
from bench.report.numbers import dollars
from bench.report.tables.table import Cell, Table, number, numbers, quantity, table

Z_90 = 1.645


def plan_table(plan: dict[str, Any]) -> Table:
    """From `run --dry-run`'s document."""
    left_out = {row["point"] for row in plan["skipped"]}
    return table(
        f"{plan['suite']} on {plan['gpu']}, predicted; nothing was measured",
        ["point", "stages", numbers("time"), "provenance", "note"],
        [
            [
                row["point"],
                " ".join(row["stages"]),
                _predicted(row),
                row["provenance"] or "unknown",
                "over the budget" if row["point"] in left_out else row["note"] or "",
            ]
            for row in plan["points"]
        ],
    )


def _predicted(row: dict[str, Any]) -> Cell | None:
    if row["predicted_s"] is None:
        return None
    return quantity(
        {"value": row["predicted_s"], "low": row["low_s"], "high": row["high_s"]}, seconds
    )


def plan_line(plan: dict[str, Any]) -> str:
    cost = plan["cost_usd"]
    money = quantity(cost, dollars).text if cost else "no price is known: give --price"
    unknown = f"; without {', '.join(plan['unknown'])}" if plan["unknown"] else ""
    return (
        f"total: {quantity(plan['total'], seconds).text}, start and finish included{unknown};"
        f" {money}\nbasis: {plan['basis']}"
    )


def skipped_table(skipped: list[dict[str, Any]]) -> Table:
    """The points that a budget left out."""
    return table(
        "Left out by the budget",
        ["point", numbers("predicted"), "reason"],
        [(row["point"], number(row["predicted_s"], seconds), row["reason"]) for row in skipped],
    )


def spent_line(spent: dict[str, Any]) -> str:
    predicted, usd = spent["predicted_s"], spent["usd"]
    said = "nothing was predicted" if predicted is None else f"predicted {seconds(predicted)}"
    money = ""
    if usd is not None:
        exact = usd["low"] == usd["high"]
        money = f", {dollars(usd['value']) if exact else quantity(usd, dollars).text}"
    return f"spent: {seconds(spent['wall_s'])} ({said}){money}"


SHOWN_FAILURES = 5


def headline_lines(summary: dict[str, Any]) -> list[str]:
    """From `run`'s summary: the headline in words, and a warning where most points are noisy."""
    h, outcomes = summary["headline"], summary["outcomes"]
    if h is None:
        words = f"none: {summary['headline_missing']}"
    else:
        words = (
            f"{quantity(h['minutes_per_gpu_hour']).text} {minutes_an_hour(h['gpu'])},"
            f" {h['model']} {h['workload']} {h['recipe']} on {h['gpu']} ({h['provenance']}"
            f"{', machine not steady' if summary.get('unsteady') else ''})"
        )
    lines, measured = [f"headline: {words}"], outcomes["ok"] + outcomes["unstable"]
    if summary.get("unsteady") and summary.get("held_out"):
        lines.append("how sure: not at all, since the machine was busy; see the warning")
    elif sure := summary.get("held_out"):
        beside = sure["one_mfu_mean"]
        one = "" if beside is None else f"; one MFU for all: {beside:.1%}"
        lines.append(
            f"how sure: predictions of steps that the fit never saw are off by {sure['mean']:.1%}"
            f" on average, {sure['worst']:.1%} at worst (n={sure['n']}){one}"
        )
    failed = summary.get("failed") or []
    lines += [f"{f['outcome']}: {f['point']}: {f['reason']}" for f in failed[:SHOWN_FAILURES]]
    if len(failed) > SHOWN_FAILURES:
        lines.append(f"and {len(failed) - SHOWN_FAILURES} more that gave no times (--tables)")
    if summary.get("unsteady"):
        lines.append(f"warning: {summary['unsteady']}")
    if 2 * outcomes["unstable"] > measured:
        lines.append(
            f"warning: {outcomes['unstable']} of {measured} points are unstable: something else is"
            " running on this machine; stop it and measure again before believing these figures"
        )
    return lines


def design_table(document: dict[str, Any]) -> Table:
    """From `plan`'s document."""
    return table(
        f"Points worth measuring for {document['for']} on {document['gpu']}, in order; nothing was"
        " measured",
        ["point", numbers("takes"), numbers("spent"), numbers("prediction then known to")],
        [
            [
                row["point"],
                number(row["predicted_s"], seconds),
                number(row["spent_s"], seconds),
                number(Z_90 * row["sigma"], lambda half: f"±{half:.1%}"),
            ]
            for row in document["points"]
        ],
    )


def design_line(document: dict[str, Any]) -> str:
    """Its basis, and a uniform sweep beside it.  90 % intervals to first order."""
    before, after, unplanned = (
        Z_90 * document[f"sigma_{name}"] for name in ("before", "after", "unplanned")
    )
    targets = document.get("targets", [])
    each = "".join(
        f"{t['point']}: ±{Z_90 * t['sigma_before']:.0%}, then ±{Z_90 * t['sigma_after']:.1%}\n"
        for t in (targets if len(targets) > 1 else [])
    )
    return each + (
        f"before: ±{before:.0%}; after {len(document['points'])} points: ±{after:.1%}; in the same"
        f" time without a plan: ±{unplanned:.1%} (90 %, of the model's parameters alone)\n"
        f"basis: {document['basis']}"
    )
