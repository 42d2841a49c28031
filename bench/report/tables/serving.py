"""A simulated queue as a document and tables; its figure is in bench.report.figures.chain."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from bench.core.units import SECONDS_PER_HOUR, SECONDS_PER_MINUTE, seconds
from bench.report.tables.common import table
from bench.results.environment import Environment
from bench.studies.serving.queue import Load, Served, Shape, Sweep
from bench.studies.serving.step_times import MeasuredServing, StepTimes

PROVENANCE = "measured step times, simulated arrivals"
PARAMETERS = ("fixed_s", "s_per_linear_flop", "s_per_attention_flop", "s_per_request")
PERCENTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}


def serving_document(
    model: str,
    recipe: str,
    environment: Environment,
    measured: MeasuredServing,
    sweeps: Sequence[Sweep],
    crowd: dict[str, Any],
) -> dict[str, Any]:
    """`serve-sim --json`.  crowd: requests, seed, and each shape's share."""
    times, names = measured.times, [shape.name for shape in measured.shapes]
    left_out = times.leave_one_out()
    return {
        "model": model,
        "recipe": recipe,
        "device": environment.device_name,
        "gpu": environment.gpu,
        "provenance": PROVENANCE,
        **crowd,
        "workloads": [
            {
                "name": shape.name,
                "tokens": shape.tokens,
                "steps": shape.steps,
                "video_s": shape.video_s,
                "step_linear_flops": cost.linear_flops,
                "step_attention_flops": cost.attention_flops,
                "beside_s": shape.beside_s,
                "stages": {
                    stage: {"value": t.median_s, "low": t.low_s, "high": t.high_s, "n": t.n}
                    for stage, t in beside.items()
                },
            }
            for shape, cost, beside in zip(
                measured.shapes, times.costs, measured.beside, strict=True
            )
        ],
        "step_times": [
            {
                "requests": {
                    name: count for name, count in zip(names, t.composition, strict=True) if count
                },
                "packed": t.packed,
                "tokens": sum(
                    n * c.tokens for n, c in zip(t.composition, times.costs, strict=True)
                ),
                "step_s": {"value": t.median_s, "low": t.low_s, "high": t.high_s},
                "n": t.n,
                "provenance": "measured",
            }
            for t in times.measured
        ],
        "mixed_fit": None
        if not times.packed
        else {
            "provenance": "fitted",
            "points": len(times.packed),
            "parameters": dict(zip(PARAMETERS, times.parameters, strict=True)),
            "leave_one_out": None
            if left_out is None
            else {"mean": left_out[0], "worst": left_out[1]},
        },
        "policies": [_policy(sweep, measured.shapes, times) for sweep in sweeps],
    }


def _policy(sweep: Sweep, shapes: Sequence[Shape], times: StepTimes) -> dict[str, Any]:
    policy = sweep.policy
    return {
        "name": policy.name,
        "max_requests": policy.max_requests,
        "token_budget": policy.token_budget,
        "one_shape": policy.one_shape,
        "joins": policy.joins,
        "max_wait_s": policy.max_wait_s,
        "saturation": _throughput(sweep.saturation, shapes)
        | {"mean_batch": sweep.saturation.mean_batch},
        "loads": [_load(load, shapes, times) for load in sweep.loads],
    }


def _load(load: Load, shapes: Sequence[Shape], times: StepTimes) -> dict[str, Any]:
    served, sources = load.served, Counter()
    for composition, steps in served.steps.items():
        sources[times.source(composition)] += steps
    latency = (
        None
        if load.saturated
        else {name: served.latency_s(share) for name, share in PERCENTILES.items()}
    )
    return {
        "arrivals_per_hour": load.arrivals_per_s * SECONDS_PER_HOUR,
        "saturated": load.saturated,
        **_throughput(served, shapes),
        "latency_s": latency,
        "utilisation": served.utilisation,
        "mean_batch": served.mean_batch,
        "steps_by_source": {name: sources[name] for name in ("measured", "interpolated", "fitted")},
    }


def _throughput(served: Served, shapes: Sequence[Shape]) -> dict[str, float]:
    hours = served.makespan_s / SECONDS_PER_HOUR
    return {
        "videos_per_hour": len(served.requests) / hours,
        "minutes_per_gpu_hour": sum(shapes[r.shape].video_s for r in served.requests)
        / SECONDS_PER_MINUTE
        / hours,
    }


def step_times_table(document: dict[str, Any]) -> Table:
    """The measured batches."""
    rows = [
        (
            " + ".join(f"{n} {name}" for name, n in t["requests"].items()),
            "packed" if t["packed"] else "batch",
            f"{t['tokens']:,}",
            seconds(t["step_s"]["value"]),
            f"{seconds(t['step_s']['low'])} to {seconds(t['step_s']['high'])}",
            str(t["n"]),
            f"{t['tokens'] / t['step_s']['value']:,.0f}",
        )
        for t in document["step_times"]
    ]
    return table(
        f"One denoising step of a batch, {document['model']}, {document['recipe']} (measured)",
        "requests",
        "way",
        "#tokens",
        "#median",
        "#interval",
        "#n",
        "#tokens/s",
        rows=rows,
    )


def serving_table(document: dict[str, Any]) -> Table:
    """Each policy at its loads, and at most."""
    rows = []
    for policy in document["policies"]:
        below = [load for load in policy["loads"] if not load["saturated"]]
        for load in below[::-1][::3][::-1]:  # the document has them all
            rows.append(
                (
                    policy["name"],
                    f"{load['arrivals_per_hour']:,.0f}",
                    f"{load['minutes_per_gpu_hour']:.3g}",
                    *(seconds(load["latency_s"][name]) for name in PERCENTILES),
                    f"{load['utilisation']:.0%}",
                    f"{load['mean_batch']:.2f}",
                )
            )
        most = policy["saturation"]
        rows.append(
            (
                policy["name"],
                f"at most {most['videos_per_hour']:,.0f}",
                f"{most['minutes_per_gpu_hour']:.3g}",
                "–",
                "–",
                "–",
                "100%",
                f"{most['mean_batch']:.2f}",
            )
        )
    return table(
        f"{document['requests']:,} requests ({document['provenance']})",
        "policy",
        "#arrivals/h",
        "#min/GPU-h",
        *(f"#{name}" for name in PERCENTILES),
        "#busy",
        "#batch",
        rows=rows,
    )


def serving_lines(document: dict[str, Any]) -> list[str]:
    """What the tables rest on, and what batching gains."""
    policies = {p["name"]: p["saturation"]["videos_per_hour"] for p in document["policies"]}
    base, lines = next(iter(policies)), []
    lines.append(
        "at most, beside "
        + base
        + ": "
        + ", ".join(
            f"{name} {most / policies[base]:.2f} x"
            for name, most in policies.items()
            if name != base
        )
    )
    fit = document["mixed_fit"]
    if fit is not None:
        error = fit["leave_one_out"]
        known = (
            "too few batches to hold one out"
            if error is None
            else f"held out: mean {error['mean']:.1%}, worst {error['worst']:.1%}"
        )
        lines.append(
            f"mixed batches that were not measured are fitted on {fit['points']} that were; {known}"
        )
    return lines
