"""Readings for the acceptance of a node: the card, its link and its host, then a GEMM load with the
clocks read under it.

A reading that cannot be had is left out of the values and named in `missing`, with why: a probe
never ends the others. What the readings mean is for `bench.studies.acceptance.verdict`.  SI units;
about 20 s on a GPU, 3 s on a CPU.
"""

import itertools
import os
import shutil
import time
from pathlib import Path
from typing import Any

import torch

from bench.measure.device.memory import free_memory
from bench.measure.probes.rates import measure, read_link, under_load
from bench.measure.probes.readings import HZ_PER_MHZ, W_PER_MW, Readings, there
from bench.measure.timing.clock import Clock

OWN_CONTEXT_BYTES = 2**30  # what this process's CUDA context and the driver hold at most

GOVERNORS = "/sys/devices/system/cpu"


def examine(device: torch.device, clock: Clock, folder: str) -> dict[str, Any]:
    """Every reading of this device and its host -> {values, missing}.  `folder` is where results
    would go."""
    readings = Readings()
    read_host(readings, Path(folder))
    if device.type == "cuda":
        nvml, handle = _card(readings, device)
        torch.zeros(1, device=device)  # the context: NVML then lists this process
        if nvml is not None:
            read_card(readings, nvml, handle, os.getpid())
        measure(readings, device, clock)
        read_link(readings, device, clock)
        under_load(readings, device, nvml, handle)
    else:
        readings.take("governors", read_governors)
        measure(readings, device, clock)
    return readings.as_dict()


def read_host(readings: Readings, folder: Path) -> None:
    """Cores, load, memory, disk, clock."""
    readings.take(
        "cores",
        lambda: (
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        ),
    )
    readings.take("load_average", lambda: os.getloadavg()[0])
    readings.take(
        "host_memory_free_bytes",
        lambda: there(free_memory(torch.device("cpu")), "no /proc/meminfo on this system"),
    )
    readings.take("disk_free_bytes", lambda: shutil.disk_usage(_existing(folder)).free)
    readings.take("clock_resolution_s", clock_tick)


def clock_tick(calls: int = 1000) -> float:
    """The smallest step that the clock is seen to make, seconds."""
    ticks = [time.perf_counter() for _ in range(calls)]
    steps = [b - a for a, b in itertools.pairwise(ticks) if b > a]
    return max(min(steps), time.get_clock_info("perf_counter").resolution)


def read_governors() -> list[str]:
    """The frequency governors in use.  Raises OSError where this system shows none."""
    files = sorted(Path(GOVERNORS).glob("cpu[0-9]*/cpufreq/scaling_governor"))
    if not files:
        raise OSError("this system shows no frequency governor (a virtual machine has none)")
    return sorted({file.read_text().strip() for file in files})


def read_card(readings: Readings, nvml: Any, handle: Any, pid: int) -> None:
    """What NVML says of an idle card.  `nvml` is the pynvml module, or a test's."""
    take = readings.take
    take("driver", lambda: str(nvml.nvmlSystemGetDriverVersion()))
    take("driver_cuda", lambda: _cuda_version(nvml.nvmlSystemGetCudaDriverVersion()))
    take("torch", lambda: str(torch.__version__))
    take("torch_cuda", lambda: there(torch.version.cuda, "torch is a build without CUDA"))
    take("ecc_enabled", lambda: bool(nvml.nvmlDeviceGetEccMode(handle)[0]))
    for name, error, counter in (
        ("ecc_uncorrected", "UNCORRECTED", "VOLATILE"),
        ("ecc_corrected", "CORRECTED", "VOLATILE"),
        ("ecc_uncorrected_lifetime", "UNCORRECTED", "AGGREGATE"),
    ):
        take(
            name,
            lambda error=error, counter=counter: nvml.nvmlDeviceGetTotalEccErrors(
                handle,
                getattr(nvml, f"NVML_MEMORY_ERROR_TYPE_{error}"),
                getattr(nvml, f"NVML_{counter}_ECC"),
            ),
        )
    take(
        "remapped_rows",
        lambda: dict(
            zip(
                ("corrected", "uncorrected", "pending", "failed"),
                map(int, nvml.nvmlDeviceGetRemappedRows(handle)),
                strict=True,
            )
        ),
    )
    take("mig_enabled", lambda: bool(nvml.nvmlDeviceGetMigMode(handle)[0]))
    take(
        "sm_clock_max_hz",
        lambda: nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM) * HZ_PER_MHZ,
    )
    take("power_limit_w", lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle) * W_PER_MW)
    take(
        "power_limit_default_w",
        lambda: nvml.nvmlDeviceGetPowerManagementDefaultLimit(handle) * W_PER_MW,
    )
    take("link_generation_max", lambda: nvml.nvmlDeviceGetMaxPcieLinkGeneration(handle))
    take("link_width_max", lambda: nvml.nvmlDeviceGetMaxPcieLinkWidth(handle))
    take("utilisation_idle", lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100)
    take(
        "other_processes",
        lambda: other_processes(nvml.nvmlDeviceGetComputeRunningProcesses(handle), pid),
    )
    memory = take("card_memory", lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
    readings.values.pop("card_memory", None)
    if memory is not None:
        readings.values["card_memory_bytes"] = int(memory.total)
        readings.values["card_memory_foreign_bytes"] = max(0, int(memory.used) - OWN_CONTEXT_BYTES)


def other_processes(listed: list[Any], pid: int) -> int:
    """Processes on the card beside this one.  In a container this one may go by another id; it is
    in the list all the same.  Raises ValueError where the list is hidden."""
    if not listed:
        raise ValueError("NVML lists no process, not even this one: a container hides them")
    return (
        len(listed) - 1
        if pid not in [p.pid for p in listed]
        else len([p for p in listed if p.pid != pid])
    )


def _card(readings: Readings, device: torch.device) -> tuple[Any, Any]:
    """(pynvml, handle) by UUID, since NVML's index ignores CUDA_VISIBLE_DEVICES; (None, None) where
    NVML cannot be had."""

    def handle() -> Any:
        import pynvml

        pynvml.nvmlInit()
        return pynvml, pynvml.nvmlDeviceGetHandleByUUID(
            f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        )

    found = readings.take("nvml", handle)
    readings.values.pop("nvml", None)
    return found or (None, None)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())


def _cuda_version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"
