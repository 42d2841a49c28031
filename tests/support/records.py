"""Records, counts and environments, made up."""

from bench.core.load import load_point
from bench.measure.timing.sampling import summarise
from bench.results.counts import Operators, StageCount
from bench.results.environment import Environment
from bench.results.records import CeilingsRecord, PointRecord


def environment() -> Environment:
    return Environment(
        gpu="cpu",
        device="cpu",
        device_name="test",
        device_uuid_hash=None,
        driver=None,
        cuda=None,
        cudnn=None,
        torch="2.13.0",
        python="3.11",
        os="Linux x86_64",
        threads=2,
        memory_bytes=1,
        code_version="test",
    )


def count(operators: Operators | None = None, **flops: int) -> StageCount:
    base = dict.fromkeys(
        (
            "linear_flops",
            "attention_flops",
            "conv_flops",
            "other_flops",
            "norm_flops",
            "bytes_modelled_min",
            "bytes_modelled_max",
            "bytes_elementwise",
            "bytes_largest_operator",
            "bytes_peak_activations",
            "kernels",
        ),
        0,
    )
    return StageCount(**{**base, **flops}, uncounted_ops={}, operators=operators)


def ceilings_record(fingerprint: str = "a") -> CeilingsRecord:
    return CeilingsRecord(
        fingerprint=fingerprint,
        suite="s",
        started_utc="2026-01-01T00:00:00+00:00",
        wall_s=1.0,
        outcome="ok",
        reason=None,
        environment=environment(),
        probes=[],
        telemetry=None,
    )


def point_record() -> PointRecord:
    point = load_point("tiny", "tiny-clip", "eager-fp32")
    return PointRecord(
        fingerprint="p",
        suite="s",
        started_utc="2026-01-01T00:00:00+00:00",
        wall_s=1.0,
        outcome="ok",
        reason=None,
        environment=environment(),
        model="tiny",
        workload="tiny-clip",
        recipe="eager-fp32",
        point=point.model_dump(mode="json"),
        tokens=1280,
        counts={"denoise_step": count(linear_flops=10**9)},
        timings={"denoise_step": summarise([1.0] * 7, [1.0], "converged", True)},
        memory=None,
        telemetry=None,
    )


def counted(**flops: int) -> dict:
    """A stage's counts as a worker's reply carries them."""
    return count(**flops).model_dump(exclude={"operators"})
