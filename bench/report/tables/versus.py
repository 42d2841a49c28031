"""Two models against each other, as a document, a table and a closing line."""

from collections.abc import Mapping
from statistics import median
from typing import Any

from rich.table import Table

from bench.core.specs.point import Point
from bench.core.units import seconds, si
from bench.report.tables.common import quantity, table

EQUAL_FLOPS = 0.005  # share by which two sides may differ and still count as the same work


def side(
    point: Point,
    flops: int,
    counted_peak: int,
    peak: Mapping[str, Any],
    round_s: list[float],
    calls: int,
) -> dict[str, Any]:
    """One side's half of the document.  peak: of `measure_peak`."""
    return {
        "model": point.model.name,
        "recipe": point.recipe.name,
        "flops": flops,
        "median_s": median(round_s),
        "round_s": round_s,
        "calls": calls,
        "flops_per_s": flops / median(round_s),
        "counted_peak_bytes": counted_peak,
        "peak_bytes": peak["peak_bytes"],
        "peak_source": peak["source"],
    }


def versus_document(
    a: dict[str, Any],
    b: dict[str, Any],
    workload: str,
    stage: str,
    device: str,
    ratio: tuple[float, float, float],
    verdict: str,
    stop: str,
) -> dict[str, Any]:
    """`versus --json`.  ratio = time of b / time of a, above 1: a is faster; ratio_per_flop is of
    FLOPs per second."""
    per_flop = a["flops"] / b["flops"]
    return {
        "a": a["model"],
        "b": b["model"],
        "workload": workload,
        "stage": stage,
        "device": device,
        "flops_a": a["flops"],
        "flops_b": b["flops"],
        "flops_equal": abs(per_flop - 1) <= EQUAL_FLOPS,
        "ratio": dict(zip(("value", "low", "high"), ratio, strict=True)),
        "ratio_per_flop": dict(
            zip(("value", "low", "high"), (x * per_flop for x in ratio), strict=True)
        ),
        "peak_ratio": (
            b["peak_bytes"] / a["peak_bytes"] if a["peak_bytes"] and b["peak_bytes"] else None
        ),
        "counted_peak_ratio": b["counted_peak_bytes"] / a["counted_peak_bytes"],
        "rounds": len(a["round_s"]),
        "stop": stop,
        "verdict": verdict,
        "sides": {"a": a, "b": b},
        "provenance": {
            "ratio": "measured",
            "flops": "counted",
            "peak_bytes": "measured",
            "counted_peak_bytes": "counted",
        },
    }


def versus_table(document: Mapping[str, Any]) -> Table:
    rows = [
        (
            f"{name}  {s['model']}",
            s["recipe"],
            si(s["flops"], "FLOP", 4),
            seconds(s["median_s"]),
            si(s["flops_per_s"], "FLOP/s"),
            si(s["peak_bytes"], "B") if s["peak_bytes"] else "–",
            si(s["counted_peak_bytes"], "B"),
        )
        for name, s in document["sides"].items()
    ]
    title = (
        f"{document['stage']} of {document['workload']} on {document['device']} "
        f"(measured, {document['rounds']} rounds in turns; FLOPs counted)"
    )
    return table(
        title,
        "side",
        "recipe",
        "#FLOPs",
        "#median",
        "#rate",
        "#peak, measured",
        "#peak, counted",
        rows=rows,
    )


def versus_line(document: Mapping[str, Any]) -> str:
    """The verdict on a, and what it rests on."""
    flops = document["flops_a"] / document["flops_b"] - 1
    equal = (
        f"FLOPs equal to {abs(flops):.2%}"
        if document["flops_equal"]
        else (
            f"FLOPs of a differ by {flops:+.1%}; for equal FLOPs"
            f" {quantity(document['ratio_per_flop'], 4)}"
        )
    )
    peaks = [
        f"{ratio:.3g} {how}"
        for ratio, how in (
            (document["peak_ratio"], "measured"),
            (document["counted_peak_ratio"], "counted"),
        )
        if ratio
    ]
    return (
        f"a is {document['verdict']}: time of b / time of a {quantity(document['ratio'], 4)} at 95"
        f" %; {equal}; peak memory of b / a {', '.join(peaks)}"
    )
