"""Two models against each other, as a document, a table and a closing line."""

from collections.abc import Mapping
from statistics import median
from typing import Any

from bench.core.specs.point import Point
from bench.core.units import seconds
from bench.report.numbers import digits, in_units, traffic, work_rate
from bench.report.tables.table import Table, counted, measured, number, quantity, table

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
        "weights": "real" if point.model.weights else "random",
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
    """Both sides."""
    return table(
        f"{document['stage']} of {document['workload']} on {document['device']}",
        [
            "side",
            "recipe",
            counted("FLOPs"),
            measured("median"),
            measured("rate"),
            measured("peak, measured"),
            counted("peak, counted"),
        ],
        [
            [
                f"{name}  {side['model']}{' (real weights)' * (side['weights'] == 'real')}",
                side["recipe"],
                number(side["flops"], in_units("FLOP", 4)),
                number(side["median_s"], seconds),
                number(side["flops_per_s"], work_rate),
                number(side["peak_bytes"] or None, traffic),
                number(side["counted_peak_bytes"], traffic),
            ]
            for name, side in document["sides"].items()
        ],
        note=f"{document['rounds']} rounds in turns",
    )


def versus_line(document: Mapping[str, Any]) -> str:
    """The verdict on a, and its grounds."""
    flops = document["flops_a"] / document["flops_b"] - 1
    ratio, per_flop = (
        quantity(document[name], digits(4)).text for name in ("ratio", "ratio_per_flop")
    )
    if document["flops_equal"]:
        equal = f"FLOPs equal to {abs(flops):.2%}"
    else:
        equal = f"FLOPs of a differ by {flops:+.1%}; for equal FLOPs {per_flop}"
    ratios = {"measured": document["peak_ratio"], "counted": document["counted_peak_ratio"]}
    peaks = ", ".join(f"{value:.3g} {how}" for how, value in ratios.items() if value)
    return (
        f"a is {document['verdict']}: time of b / time of a {ratio} at 95 %; {equal}; peak memory"
        f" of b / a {peaks}"
    )
