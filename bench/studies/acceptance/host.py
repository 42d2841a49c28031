"""Checks of what surrounds the card: its company, the software, the host."""

from bench.core.known_faults import slow_conv3d
from bench.core.units import si
from bench.studies.acceptance.checks import Check, Look
from bench.studies.acceptance.rates import repeatability
from bench.studies.acceptance.thresholds import (
    CLOCK_TICK_WARN_S,
    DISK_WARN_BYTES,
    FOREIGN_MEMORY_WARN,
    HOST_MEMORY_WARN_BYTES,
    IDLE_UTILISATION_WARN,
    LOAD_WARN,
)


def company(look: Look) -> list[Check]:
    checks = []
    others = look.get("other_processes")
    checks.append(
        look.unknown("other processes", "other_processes")
        if others is None
        else Check(
            "other processes",
            str(others),
            "0",
            "warn" if others else "ok",
            "someone else computes on this card" if others else None,
        )
    )
    foreign, total = look.get("card_memory_foreign_bytes"), look.get("card_memory_bytes")
    if foreign is None or total is None:
        checks.append(look.unknown("free card memory", "card_memory"))
    else:
        much = foreign > FOREIGN_MEMORY_WARN * total
        checks.append(
            Check(
                "free card memory",
                f"{(total - foreign) / 1e9:.1f} GB of {total / 1e9:.1f} GB",
                f"over {1 - FOREIGN_MEMORY_WARN:.0%}",
                "warn" if much else "ok",
                f"{foreign / 1e9:.1f} GB are held by others" if much else None,
            )
        )
    busy = look.get("utilisation_idle")
    checks.append(
        look.unknown("idle before", "utilisation_idle")
        if busy is None
        else Check(
            "idle before",
            f"{busy:.0%} busy",
            f"under {IDLE_UTILISATION_WARN:.0%}",
            "warn" if busy > IDLE_UTILISATION_WARN else "ok",
            "the card was at work before anything was asked of it"
            if busy > IDLE_UTILISATION_WARN
            else None,
        )
    )
    return checks


def versions(look: Look) -> Check:
    driver, theirs = look.get("driver_cuda"), look.get("torch_cuda")
    if driver is None or theirs is None:
        return look.unknown("versions", "driver_cuda" if driver is None else "torch_cuda")
    pairs = [tuple(int(n) for n in v.split(".")[:2]) for v in (driver, theirs)]
    old = pairs[0] < pairs[1]
    return Check(
        "versions",
        f"driver {look.get('driver') or 'unknown'} for CUDA {driver}, torch for CUDA {theirs}",
        "the driver's CUDA is not older than torch's",
        "warn" if old else "ok",
        "the driver is older than torch's CUDA: kernels may be slow to load or missing"
        if old
        else None,
    )


def torch(look: Look) -> Check:
    version = look.get("torch")
    if version is None:
        return look.unknown("torch", "torch")
    fault = slow_conv3d(version)
    return Check("torch", version, "any but 2.9", "warn" if fault else "ok", fault)


def cpu_wanted(device_name: str, wanted: str | None) -> list[Check]:
    wrong = wanted not in (None, "cpu")
    return [
        Check(
            "device",
            device_name,
            wanted or "cpu",
            "fail" if wrong else "ok",
            f"ordered {wanted}, and no CUDA device can be used here" if wrong else None,
        )
    ]


def governor(look: Look) -> Check:
    governors = look.get("governors")
    if governors is None:
        return look.unknown("frequency governor", "governors", "performance")
    slow = "powersave" in governors
    return Check(
        "frequency governor",
        ", ".join(governors),
        "performance",
        "warn" if slow else "ok",
        "powersave holds the clock down until a load has lasted" if slow else None,
    )


def host(look: Look, device: str) -> list[Check]:
    checks = []
    cores, load = look.get("cores"), look.get("load_average")
    if cores is None or load is None:
        checks.append(look.unknown("load", "load_average" if load is None else "cores"))
    else:
        busy = load > LOAD_WARN * cores
        checks.append(
            Check(
                "load",
                f"{load:.2f} on {cores} cores",
                f"under {LOAD_WARN * cores:g}",
                "warn" if busy else "ok",
                "a busy machine spoils measurement" if busy else None,
            )
        )
    for name, reading, least in (
        ("free host memory", "host_memory_free_bytes", HOST_MEMORY_WARN_BYTES),
        ("free disk", "disk_free_bytes", DISK_WARN_BYTES),
    ):
        value = look.get(reading)
        checks.append(
            look.unknown(name, reading)
            if value is None
            else Check(
                name,
                f"{value / 1e9:.1f} GB",
                f"over {least / 1e9:.0f} GB",
                "warn" if value < least else "ok",
                "too little for a suite and its results" if value < least else None,
            )
        )
    tick = look.get("clock_resolution_s")
    checks.append(
        look.unknown("clock resolution", "clock_resolution_s")
        if tick is None
        else Check(
            "clock resolution",
            si(tick, "s"),
            f"under {si(CLOCK_TICK_WARN_S, 's')}",
            "warn" if tick > CLOCK_TICK_WARN_S else "ok",
            "too coarse for small stages" if tick > CLOCK_TICK_WARN_S else None,
        )
    )
    if device == "cpu":
        gemm = look.get("gemm")
        checks.append(
            look.unknown("GEMM", "gemm")
            if gemm is None
            else Check(
                "GEMM", f"{si(gemm['flops_per_s'], 'FLOP/s')} in {gemm['dtype']}", None, "ok", None
            )
        )
        checks.append(repeatability(look))
    return checks
