"""Results as a GPU would give them, invented, and the page of one."""

import pytest

from bench.calibrate.calibration import Calibration, FittedStage, Headline, Reference
from bench.calibrate.cost.parameters import PARAMETERS
from bench.core.load import load
from bench.core.quantity import Quantity
from bench.core.specs.suite import Suite
from bench.measure.timing.sampling import summarise
from bench.report.figures import drawing
from bench.report.write import write_report
from bench.results.counts import StageCount
from bench.results.readings import Energy, Memory, Series, StageMemory, StageTelemetry, Summary
from bench.results.records import CeilingsRecord, PointRecord, Probe
from bench.results.store import CALIBRATION, PAGE, SUITE, Store
from support.calibrations import calibration
from support.records import ceilings_record, count, environment, point_record

EVIL = "<script>alert(1)</script>"


WORSE = "\"><img src=x onerror=alert(2)>'-->]]>&amp;</style></title></svg>"


def gpu_environment(name: str = "NVIDIA H100 80GB HBM3"):
    return environment().model_copy(
        update={"gpu": "h100-sxm", "device": "cuda", "device_name": name}
    )


def telemetry(watts: float) -> StageTelemetry:
    """A stage's readings: power without a gap, a clock held down now and then, no GPM."""
    n = 30
    clocks = [1.98e9 - 3e8 * (i % 7 == 3) for i in range(n)]
    missing = dict.fromkeys(
        [
            "dram_util_percent",
            "tensor_util_percent",
            "sm_util_percent",
            "sm_occupancy_percent",
            "dram_bytes_per_s_derived",
        ],
        "the driver has no GPM",
    )
    return StageTelemetry(
        reason=None,
        missing=missing,
        n=n,
        sampled_over="timed",
        sm_clock_hz=Summary(min=1.68e9, median=1.98e9, max=1.98e9, n=n),
        memory_clock_hz=Summary(min=2.6e9, median=2.6e9, max=2.6e9, n=n),
        power_w=Summary(min=watts - 20, median=watts, max=watts + 20, n=n),
        temperature_c=Summary(min=50, median=60, max=66, n=n),
        throttle_fractions={"hw_thermal_slowdown": 4 / n},
        throttled=True,
        power_limited=False,
        series=Series(
            t_s=[0.1 * i for i in range(n)],
            sm_clock_hz=clocks,
            memory_clock_hz=[2.6e9] * n,
            power_w=[watts + 20 * (-1) ** i for i in range(n)],
            temperature_c=[50 + i / 2 for i in range(n)],
            throttle_reasons=[["hw_thermal_slowdown"] if c < 1.9e9 else [] for c in clocks],
        ),
        energy=Energy(energy_j=watts * 0.5, power_w=watts, calls=9, window_s=4.5),
        dram_util_percent=None,
        tensor_util_percent=None,
        sm_util_percent=None,
        sm_occupancy_percent=None,
        dram_bytes_per_s_derived=None,
    )


def probe(kind: str, rate: float, size: int, dtype: str = "bf16") -> Probe:
    moved = kind in ("copy", "triad", "read", "write")
    work = {"bytes_moved": size, "flops": None} if moved else {"flops": size, "bytes_moved": None}
    shape = {"bytes": size} if moved else {"m": size, "n": size, "k": size}
    taken = [size / rate * f for f in (0.98, 1.0, 1.0, 1.0, 1.0, 1.01, 1.03)]
    return Probe(
        kind=kind,
        dtype=dtype,
        backend="flash" if kind == "attention" else None,
        shape=shape,
        timing=summarise(taken, [], "converged", True),
        **work,
    )


TOKENS = (1024, 4096, 16384)


def seconds_of(size: int) -> float:
    """What a stage of the size-th point takes."""
    return 0.02 * 4**size


def counts_of(size: int) -> dict[str, StageCount]:
    """Work of the size-th point, by stage."""
    work = count(
        linear_flops=10**13 * 4**size,
        attention_flops=4 * 10**12,
        bytes_modelled_min=10**10,
        bytes_modelled_max=4 * 10**10,
        bytes_peak_activations=3 * 10**9,
    )
    return {"denoise_step": work, "vae_decode": work}


def gpu_ceilings() -> CeilingsRecord:
    """Ceilings of every kind of probe; memory at three sizes of an array."""
    products = [
        probe("gemm", 700e12, 10**13),
        probe("gemm", 400e12, 10**12),
        probe("attention", 500e12, 10**13),
        probe("conv3d", 300e12, 10**13),
    ]
    ladder = [
        probe(kind, 2.8e12 * faster, size)
        for kind in ("copy", "triad", "read", "write")
        for size, faster in ((2**22, 3.0), (2**28, 1.1), (2**31, 1.0))
    ]
    made = ceilings_record("c")
    return made.model_copy(
        update={"environment": gpu_environment(), "probes": [*products, *ladder]}
    )


def gpu_point(size: int, model: str, reason: str | None) -> PointRecord:
    """The size-th point, with every reading."""
    stages = counts_of(size)
    taken = [seconds_of(size) * f for f in (0.99, 1.0, 1.0, 1.01, 1.0, 1.02, 1.0)]
    peak = StageMemory(
        peak_allocated=8 * 10**9, peak_reserved=9 * 10**9, device_used=10**10, activations=2 * 10**9
    )
    memory = Memory(
        weights=6 * 10**9,
        peak_allocated=8 * 10**9,
        peak_reserved=9 * 10**9,
        by_stage=dict.fromkeys(stages, peak),
        reason=None,
    )
    return point_record().model_copy(
        update={
            "fingerprint": f"p{size}",
            "model": model,
            "workload": f"clip-{size}",
            "tokens": TOKENS[size],
            "environment": gpu_environment(),
            "recipe": "eager-bf16",
            "counts": stages,
            "timings": {s: summarise(taken, [], "converged", True) for s in stages},
            "telemetry": {s: telemetry(500 + 60 * size) for s in stages},
            "reason": reason,
            "memory": memory,
        }
    )


def gpu_calibration(points: list[PointRecord], model: str, reason: str | None) -> Calibration:
    """Fitted to these points 3 % too slow, with a headline and the reference."""
    stages = [
        FittedStage(
            point=point.label,
            stage=stage,
            tokens=point.tokens,
            flops=counted.flops,
            measured_s=seconds_of(size),
            fitted_s=seconds_of(size) * 1.03,
            held_out_s=seconds_of(size) * 0.93 if stage == "denoise_step" else None,
        )
        for size, point in enumerate(points)
        for stage, counted in point.counts.items()
    ]
    fitted = calibration()
    parameters = {
        name: p.model_copy(update={"unit": PARAMETERS[name].unit})
        for name, p in fitted.fit_for(None).parameters.items()
    }
    one = fitted.fit_for(None).model_copy(
        update={"stages": stages, "parameters": parameters, "constant_mfu_flops_per_s": 4e14}
    )
    minutes = Quantity(0.2, 0.18, 0.23)
    headline = Headline(
        model=model,
        workload="clip-0",
        recipe="eager-bf16",
        gpu="h100-sxm",
        minutes_per_gpu_hour=minutes,
        video_s=minutes,
        provenance="fitted",
        warnings=[reason] if reason else [],
    )
    reference = Reference(
        gpu="h100-sxm",
        gemm_ceiling_flops_per_s=7e14,
        denoise_minutes=0.22,
        minutes=minutes,
        guided_minutes=0.1,
        provenance="extrapolated",
        warnings=["extrapolated: tokens"],
    )
    return fitted.model_copy(
        update={"fits": {"eager-bf16": one}, "headline": headline, "reference": reference}
    )


def a_gpus_result(directory, model: str = "own", reason: str | None = None, suite: str = "smoke"):
    """A result as a GPU would give it, invented for these tests: every reading is there, one stage
    has gaps."""
    names = (model, model, f"{model}-wide")
    points = [gpu_point(size, name, reason) for size, name in enumerate(names)]
    with Store(directory) as store:
        for record in (gpu_ceilings(), *points):
            store.append_record(record)
    named = load(Suite, "smoke").model_copy(update={"name": suite})
    (directory / SUITE).write_text(named.model_dump_json())
    fitted = gpu_calibration(points, model, reason)
    (directory / CALIBRATION).write_text(fitted.model_dump_json())
    return directory


def written(directory) -> str:
    """The page, with its figures in the one format that it needs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "FORMATS", ("svg",))
        write_report(directory)
    return (directory / PAGE).read_text()
