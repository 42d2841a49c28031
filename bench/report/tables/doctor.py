"""The tables of `doctor`: is this node sound, and is the harness's clock?"""

from collections.abc import Mapping
from typing import Any

from bench.core.units import seconds
from bench.report.numbers import digits
from bench.report.tables.table import Table, measured, number, quantity, table
from bench.studies.acceptance.verdict import Acceptance


def acceptance_table(device_name: str, acceptance: Acceptance) -> Table:
    """Each check of a node, with its verdict."""
    return table(
        f"{device_name}: {acceptance.verdict}",
        ["check", "verdict", "measured", "expected", "why"],
        [(c.name, c.verdict, c.measured, c.expected, c.why or "") for c in acceptance.checks],
        note="measured, against published and datasheet figures",
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


def timer_table(point: str, checked: Mapping[str, Any]) -> Table:
    """From `doctor --timer --json`'s document."""
    host_bound = "host bound" if checked["host_bound"] else "not host bound"
    ways = {
        "bare loop": ("bare_loop_s", "1"),
        "this harness": ("harness_s", _ratio(checked, "harness_ratio")),
        "this harness without its hold": (
            "without_hold_s",
            checked["hold_reason"] or _ratio(checked, "without_hold_ratio"),
        ),
        "torch.utils.benchmark": ("torch_benchmark_s", _ratio(checked, "torch_benchmark_ratio")),
        "CUDA graph replay": ("graph_replay_s", checked["graph_reason"] or host_bound),
    }
    return table(
        f"Seconds of a denoising step of {point}",
        ["way", measured("median"), measured("ratio to the bare loop")],
        [
            (way, number(checked[name] or None, seconds), ratio)
            for way, (name, ratio) in ways.items()
        ],
        note=f"{checked['rounds']} rounds in turns",
    )


def _ratio(checked: Mapping[str, Any], name: str) -> str:
    return quantity(checked[name], digits(5)).text
