"""What a card and its link do now: GEMM and copy in a second, and GEMM for as long as it takes to
get warm.  SI units."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from bench.count.point import DTYPES
from bench.measure.device.nvml import THROTTLE_REASONS
from bench.measure.probes.readings import HZ_PER_MHZ, W_PER_MW, Readings
from bench.measure.timing.clock import Clock

LOAD_S = 5.0  # clocks settle within a second or two; power and temperature go on rising
GEMM_S = 0.5  # of one GEMM timing
# The published best shapes (MAMF) of H100, A100 SXM and A100 PCIe, and two that larger cards need.
GEMM_SHAPES = {
    "cuda": (
        (2048, 2048, 13312),
        (1024, 10240, 5120),
        (2048, 5120, 6144),
        (4096, 4096, 4096),
        (8192, 8192, 8192),
    ),
    "cpu": ((1024, 1024, 1024),),
}
LOAD_SHAPE = (8192, 8192, 8192)
COPY_BYTES = {"cuda": 2**31, "cpu": 2**27}  # over any cache
LINK_BYTES = 2**28


def measure(readings: Readings, device: torch.device, clock: Clock) -> None:
    """GEMM at the best of a few shapes, the same shape again, and copy."""
    dtype = "bf16" if device.type == "cuda" else "fp32"
    rates: dict[tuple[int, int, int], float] = {}

    def best() -> dict[str, Any]:
        for shape in GEMM_SHAPES[device.type]:
            rates[shape] = gemm_rate(device, clock, dtype, shape)
        shape = max(rates, key=lambda s: rates[s])
        return {"flops_per_s": rates[shape], "dtype": dtype, "shape": "x".join(map(str, shape))}

    if readings.take("gemm", best) is not None:
        shape = max(rates, key=lambda s: rates[s])
        again = readings.take(
            "gemm_again_flops_per_s", lambda: gemm_rate(device, clock, dtype, shape)
        )
        if (
            again is not None and device.type == "cuda"
        ):  # a burst of the card's best, whichever run had it
            readings.values["gemm"]["flops_per_s"] = max(rates[shape], again)
        if again is not None:
            readings.values["gemm_first_flops_per_s"] = rates[shape]
    readings.take("copy_bytes_per_s", lambda: copy_rate(device, clock))


def quick_rates(device: torch.device, clock: Clock, dtypes: list[str]) -> dict[str, Any]:
    """GEMM by dtype and copy, in about a second: what a dry run knows of a device without
    records."""
    shape = GEMM_SHAPES[device.type][-1]
    return {
        "gemm_flops_per_s": {dtype: gemm_rate(device, clock, dtype, shape) for dtype in dtypes},
        "copy_bytes_per_s": copy_rate(device, clock),
    }


def gemm_rate(device: torch.device, clock: Clock, dtype: str, shape: tuple[int, int, int]) -> float:
    """FLOP/s, of the median of half a second of calls on random operands."""
    m, n, k = shape
    a, b = (_randn((rows, k), device, dtype, seed) for rows, seed in ((m, 0), (n, 1)))
    return 2 * m * n * k / _median_call(clock, lambda: F.linear(a, b))


def copy_rate(device: torch.device, clock: Clock) -> float:
    """Bytes/s read and written, within the device's memory."""
    size = COPY_BYTES[device.type]
    a = _randn((size // 4,), device, "fp32", 0)
    b = torch.empty_like(a)
    return 2 * size / _median_call(clock, lambda: b.copy_(a))


def read_link(readings: Readings, device: torch.device, clock: Clock) -> None:
    """Bandwidth between pinned host memory and the card."""

    def transfer(up: bool) -> float:
        host = torch.empty(LINK_BYTES, dtype=torch.uint8, pin_memory=True)
        card = torch.empty(LINK_BYTES, dtype=torch.uint8, device=device)
        target, origin = (card, host) if up else (host, card)
        return LINK_BYTES / _median_call(clock, lambda: target.copy_(origin, non_blocking=True))

    readings.take("host_to_device_bytes_per_s", lambda: transfer(True))
    readings.take("device_to_host_bytes_per_s", lambda: transfer(False))


def under_load(readings: Readings, device: torch.device, nvml: Any, handle: Any) -> None:
    """Five seconds of large GEMMs: their rate, and what NVML reads while they run."""

    def load() -> dict[str, Any]:
        m, n, k = LOAD_SHAPE
        a, b = (_randn((rows, k), device, "bf16", seed) for rows, seed in ((m, 0), (n, 1)))
        return run_load(
            lambda: F.linear(a, b),
            lambda: torch.cuda.synchronize(device),
            time.perf_counter,
            lambda: read_busy(nvml, handle) if nvml is not None else {},
            2 * m * n * k,
        )

    loaded = readings.take("load", load)
    readings.values.pop("load", None)
    if loaded is None:
        return
    readings.values["gemm_sustained_flops_per_s"] = loaded.pop("flops_per_s")
    for name in (
        "sm_clock_hz",
        "power_w",
        "temperature_c",
        "throttle_reasons",
        "link_generation",
        "link_width",
    ):
        if loaded.get(name) is not None:
            readings.values[f"load_{name}"] = loaded[name]
        else:
            readings.missing[f"load_{name}"] = loaded.get("why", {}).get(
                name, "NVML cannot be had here"
            )


def run_load(
    call: Callable[[], Any],
    wait: Callable[[], None],
    now: Callable[[], float],
    read: Callable[[], dict[str, Any]],
    flops: int,
    batch: int = 64,
) -> dict[str, Any]:
    """Queue calls for LOAD_S and read the card while each batch runs -> the medians of the second
    half, when it is warm.

    Throttle reasons are those of any reading in it."""
    call()
    wait()
    start, samples, done = now(), [], 0
    while now() - start < LOAD_S:
        for _ in range(batch):
            call()
        samples.append(read())  # the batch is queued: the card works while this reads
        wait()
        done += batch
    seconds = now() - start
    warm = samples[len(samples) // 2 :]
    out: dict[str, Any] = {"flops_per_s": done * flops / seconds, "why": {}}
    for sample in warm:
        out["why"] |= sample.get("why", {})
    for name in ("sm_clock_hz", "power_w", "temperature_c", "link_generation", "link_width"):
        values = [s[name] for s in warm if s.get(name) is not None]
        out[name] = statistics.median(values) if values else None
    reasons = [s["throttle_reasons"] for s in warm if s.get("throttle_reasons") is not None]
    out["throttle_reasons"] = sorted(set().union(*reasons)) if reasons else None
    return out


def read_busy(nvml: Any, handle: Any) -> dict[str, Any]:
    """Clock, power, temperature, throttle reasons and the link, now."""
    readings = Readings()
    take = readings.take
    take(
        "sm_clock_hz", lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM) * HZ_PER_MHZ
    )
    take("power_w", lambda: nvml.nvmlDeviceGetPowerUsage(handle) * W_PER_MW)
    take("temperature_c", lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))
    take(
        "throttle_reasons",
        lambda: [
            name
            for bit, name in THROTTLE_REASONS.items()
            if nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle) & bit
        ],
    )
    take("link_generation", lambda: nvml.nvmlDeviceGetCurrPcieLinkGeneration(handle))
    take("link_width", lambda: nvml.nvmlDeviceGetCurrPcieLinkWidth(handle))
    return {**readings.values, "why": readings.missing}


def _randn(shape: tuple[int, ...], device: torch.device, dtype: str, seed: int) -> torch.Tensor:
    return torch.randn(
        *shape,
        device=device,
        dtype=DTYPES[dtype],
        generator=torch.Generator(device).manual_seed(seed),
    )


def _median_call(clock: Clock, call: Callable[[], Any]) -> float:
    for _ in range(2):
        clock.time(call)
    start, samples = clock.now(), []
    while len(samples) < 5 or (len(samples) < 100 and clock.now() - start < GEMM_S):
        samples.append(clock.time(call))
    return statistics.median(samples)
