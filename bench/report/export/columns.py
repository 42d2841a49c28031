"""The columns of an exported result: one row for each timed stage of a point.  Units are in the
names; docs/export.md has the same words."""

from collections.abc import Iterator, Sequence
from typing import Any

from bench.results.readings import Timing
from bench.results.records import PointRecord
from bench.results.video import MEASURED

COLUMNS: dict[str, str] = {
    "model": "name in configs/models, with what --set changed in brackets",
    "workload": "name in configs/workloads",
    "recipe": "name in configs/recipes",
    "stage": "denoise_step, vae_decode, text_encode, ...",
    "dtype": "of weights and activations",
    "mesh": "ranks of one model by axis; empty on one GPU",
    "gpus_per_sample": "GPUs that worked on one video",
    "batch": "videos at a time",
    "tokens": "of the denoiser's sequence",
    "outcome": "ok, or unstable: the median is known to no better than 20 %",
    "median_s": "measured: seconds of one call",
    "low_s": "measured: low end of the median's interval",
    "high_s": "measured: high end of it",
    "confidence": "that the interval has: 0.95, or less of under six samples",
    "p5_s": "measured: 5th percentile of the samples",
    "p95_s": "measured: 95th percentile",
    "samples": "number of them",
    "stop": "why no more were taken: converged, noise_stable, timeout, max_samples",
    "flops": "counted: of one call by fvcore's rules, 1 multiply-accumulate = 2, norms left out",
    "linear_flops": "counted: matrix products",
    "attention_flops": "counted: attention",
    "conv_flops": "counted: convolutions",
    "bytes_modelled_min": "counted: with perfect fusion",
    "bytes_modelled_max": "counted: run operator by operator",
    "achieved_flops_per_s": "derived: flops over median_s, of all GPUs together",
    "peak_allocated_bytes": "measured: by PyTorch's allocator; on a CPU of the process; of rank 0",
    "energy_j": "measured: of one call and one video's GPUs; empty without a counter",
    "gpu": "name in configs/gpus, or cpu",
    "device_name": "as the driver reports it",
    "card": "hash of the card's UUID; empty on a CPU",
    "torch": "version",
    "code_version": "git commit of ldt-bench, + where it was edited",
    "started_utc": "when the point was begun",
    "fingerprint": "of everything that decides what is executed",
}
PAPER = ("model", "workload", "recipe", "stage", "median_s", "low_s", "high_s", "flops")
"""Columns of the LaTeX table."""


def rows_of(records: Sequence[PointRecord]) -> list[dict[str, Any]]:
    """One for each timed stage, in the order measured."""
    return [row for record in records if record.outcome in MEASURED for row in _rows(record)]


def _rows(record: PointRecord) -> Iterator[dict[str, Any]]:
    point, environment, group = record.point, record.environment, record.group
    for stage, timing in record.timings.items():
        count = record.counts[stage]
        flops = count.flops - count.norm_flops
        values = {
            "model": record.model,
            "workload": record.workload,
            "recipe": record.recipe,
            "stage": stage,
            "dtype": point["recipe"]["dtype"],
            "mesh": group.mesh if group else None,
            "gpus_per_sample": group.of_one_sample if group else 1,
            "batch": point["workload"].get("batch", 1),
            "tokens": record.tokens,
            "outcome": record.outcome,
            **_seconds(timing),
            "flops": flops,
            "linear_flops": count.linear_flops,
            "attention_flops": count.attention_flops,
            "conv_flops": count.conv_flops,
            "bytes_modelled_min": count.bytes_modelled_min,
            "bytes_modelled_max": count.bytes_modelled_max,
            "achieved_flops_per_s": flops / timing.median_s,
            "peak_allocated_bytes": record.memory.peak_allocated if record.memory else None,
            "energy_j": record.joules.get(stage),
            "gpu": environment.gpu,
            "device_name": environment.device_name,
            "card": environment.device_uuid_hash,
            "torch": environment.torch,
            "code_version": environment.code_version,
            "started_utc": record.started_utc,
            "fingerprint": record.fingerprint,
        }
        yield {name: values[name] for name in COLUMNS}


def _seconds(timing: Timing) -> dict[str, Any]:
    named = ("median_s", "low_s", "high_s", "confidence", "p5_s", "p95_s", "stop")
    return {name: getattr(timing, name) for name in named} | {"samples": timing.n}
