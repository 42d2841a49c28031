"""A simulated queue as a document and tables; its figure is in bench.report.figures.serving."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from bench.core.units import SECONDS_PER_HOUR, SECONDS_PER_MINUTE, an_hour_of, seconds
from bench.report.numbers import percent, whole
from bench.report.tables.table import Cell, Table, counted, measured, number, numbers, span, table
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
    return {
        "model": model,
        "recipe": recipe,
        "device": environment.device_name,
        "gpu": environment.gpu,
        "provenance": PROVENANCE,
        **crowd,
        "workloads": _workloads(measured),
        "step_times": _step_times(measured),
        "mixed_fit": _mixed_fit(measured.times),
        "policies": [_policy(sweep, measured.shapes, measured.times) for sweep in sweeps],
    }


def _workloads(measured: MeasuredServing) -> list[dict[str, Any]]:
    return [
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
            measured.shapes, measured.times.costs, measured.beside, strict=True
        )
    ]


def _step_times(measured: MeasuredServing) -> list[dict[str, Any]]:
    names, costs = [shape.name for shape in measured.shapes], measured.times.costs
    out = []
    for t in measured.times.measured:
        requests = {name: n for name, n in zip(names, t.composition, strict=True) if n}
        out.append(
            {
                "requests": requests,
                "packed": t.packed,
                "tokens": sum(
                    n * cost.tokens for n, cost in zip(t.composition, costs, strict=True)
                ),
                "step_s": {"value": t.median_s, "low": t.low_s, "high": t.high_s},
                "n": t.n,
                "provenance": "measured",
            }
        )
    return out


def _mixed_fit(times: StepTimes) -> dict[str, Any] | None:
    """The line through packed batches of several shapes; None where none was measured."""
    if not times.packed:
        return None
    left_out = times.leave_one_out()
    error = None if left_out is None else {"mean": left_out[0], "worst": left_out[1]}
    return {
        "provenance": "fitted",
        "points": len(times.packed),
        "parameters": dict(zip(PARAMETERS, times.parameters, strict=True)),
        "leave_one_out": error,
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
    return table(
        f"One denoising step of a batch, {document['model']}, {document['recipe']}",
        [
            "requests",
            "way",
            counted("tokens"),
            measured("median"),
            measured("interval"),
            measured("n"),
            measured("tokens/s"),
        ],
        [
            [
                " + ".join(f"{n} {name}" for name, n in t["requests"].items()),
                "packed" if t["packed"] else "batch",
                number(t["tokens"], whole),
                number(t["step_s"]["value"], seconds),
                span(t["step_s"]["low"], t["step_s"]["high"], seconds),
                number(t["n"], str),
                number(t["tokens"] / t["step_s"]["value"], whole),
            ]
            for t in document["step_times"]
        ],
    )


def serving_table(document: dict[str, Any]) -> Table:
    """Each policy at every third of its loads, and at most; the document has them all."""
    rows = []
    for policy in document["policies"]:
        name, most = policy["name"], policy["saturation"]
        below = [load for load in policy["loads"] if not load["saturated"]]
        rows += [_load_cells(name, load) for load in below[::-1][::3][::-1]]
        videos = most["videos_per_hour"]
        rows.append(
            [
                name,
                Cell(f"at most {whole(videos)}", videos),
                number(most["minutes_per_gpu_hour"]),
                *[None] * len(PERCENTILES),
                number(1.0, percent(0)),
                number(most["mean_batch"], _batch),
            ]
        )
    return table(
        f"{document['requests']:,} requests",
        [
            "policy",
            numbers("arrivals/h"),
            numbers(f"min/{an_hour_of(document['gpu'])}"),
            *map(numbers, PERCENTILES),
            numbers("busy"),
            numbers("batch"),
        ],
        rows,
        note=document["provenance"],
    )


def _load_cells(policy: str, load: dict[str, Any]) -> list[Cell | str]:
    return [
        policy,
        number(load["arrivals_per_hour"], whole),
        number(load["minutes_per_gpu_hour"]),
        *(number(load["latency_s"][name], seconds) for name in PERCENTILES),
        number(load["utilisation"], percent(0)),
        number(load["mean_batch"], _batch),
    ]


def _batch(requests: float) -> str:
    return f"{requests:.2f}"


def serving_lines(document: dict[str, Any]) -> list[str]:
    """The gain of batching, and the ground of the fitted batches."""
    most = {p["name"]: p["saturation"]["videos_per_hour"] for p in document["policies"]}
    base, *others = most
    gains = ", ".join(f"{name} {most[name] / most[base]:.2f} x" for name in others)
    lines, fit = [f"at most, beside {base}: {gains}"], document["mixed_fit"]
    if fit is not None:
        error = fit["leave_one_out"]
        known = "too few batches to hold one out"
        if error is not None:
            known = f"held out: mean {error['mean']:.1%}, worst {error['worst']:.1%}"
        lines.append(
            f"mixed batches that were not measured are fitted on {fit['points']} that were; {known}"
        )
    return lines
