"""Checks of what the card reaches: products, copies, links."""

from dataclasses import dataclass

from bench.core.specs.gpu import Gpu, UsualRate
from bench.core.units import si
from bench.studies.acceptance.checks import Check, Look, least
from bench.studies.acceptance.thresholds import (
    DATASHEET_COPY,
    DATASHEET_GEMM,
    LINK_BYTES_PER_LANE,
    LINK_FAIL,
    LINK_WARN,
    RATE_FAIL,
    RATE_WARN,
    REPEAT_WARN,
)


def rates(look: Look, gpu: Gpu | None) -> list[Check]:
    """Products and copies; and how long the rate of a product holds."""
    gemm = look.get("gemm")
    burst = gemm["flops_per_s"] if gemm else None
    peak = gpu.peak_flops_per_s.get("bf16") if gpu else None
    bandwidth = gpu.bandwidth_bytes_per_s if gpu else None
    usual = gpu.usual if gpu else {}
    of_gemm = Published(
        usual.get("gemm_bf16_flops_per_s"), peak and DATASHEET_GEMM * peak, peak, "FLOP/s"
    )
    of_copy = Published(
        usual.get("copy_bytes_per_s"), bandwidth and DATASHEET_COPY * bandwidth, bandwidth, "B/s"
    )
    checks = [
        _rate(look, "GEMM", "gemm", burst, of_gemm),
        _rate(look, "copy", "copy_bytes_per_s", look.get("copy_bytes_per_s"), of_copy),
        repeatability(look),
    ]
    sustained = look.get("gemm_sustained_flops_per_s")
    if sustained is not None and burst:
        shown = f"{si(sustained, 'FLOP/s')}, {sustained / burst:.0%} of the burst"
        checks.append(Check("GEMM, sustained", shown, None, "ok", None))
    return checks


@dataclass(frozen=True)
class Published:
    """What a rate is held against."""

    usual: UsualRate | None
    """The range that such cards were published to reach."""
    carried: float | None
    """The lowest published share of other cards' datasheets, of this card's."""
    datasheet: float | None
    unit: str


def _rate(look: Look, name: str, reading: str, value: float | None, held: Published) -> Check:
    if value is None:  # not able to do the one thing it is rented for
        return look.unknown(name, reading, verdict="warn")
    shown = si(value, held.unit)
    if held.usual is not None:
        low, high = held.usual.low, held.usual.high
        span = si(low, held.unit, 4)
        if low != high:
            span += f" to {si(high, held.unit, 4)}"
        verdict = least(value / low, RATE_WARN, RATE_FAIL)
        why = f"{value / low:.0%} of what such cards usually reach"
        return look.judge(name, shown, f"{span} ({held.usual.source})", verdict, why)
    if held.datasheet is None or held.carried is None:
        why = "no published rate and no datasheet for this device"
        return Check(name, shown, None, "unknown", why)
    expected = (
        f"about {si(held.carried, held.unit)} (extrapolated:"
        f" {held.carried / held.datasheet:.1%} of the datasheet,"
        " the lowest published share of other cards)"
    )
    verdict = "warn" if value < RATE_WARN * held.carried else "ok"
    return look.judge(
        name, shown, expected, verdict, f"{value / held.datasheet:.0%} of the datasheet"
    )


def repeatability(look: Look) -> Check:
    first, again = look.get("gemm_first_flops_per_s"), look.get("gemm_again_flops_per_s")
    if first is None or again is None:
        return look.unknown("repeatability", "gemm_again_flops_per_s")
    off = abs(first / again - 1)
    return Check(
        "repeatability",
        f"two GEMM runs differ by {off:.1%}",
        f"within {REPEAT_WARN:.0%}",
        "warn" if off > REPEAT_WARN else "ok",
        "the same product takes another time each time: something else runs here"
        if off > REPEAT_WARN
        else None,
    )


def links(look: Look) -> list[Check]:
    checks = []
    generation, width = look.get("link_generation_max"), look.get("link_width_max")
    now, lanes = look.get("load_link_generation"), look.get("load_link_width")
    if None in (generation, width, now, lanes):
        checks.append(
            look.unknown(
                "PCIe link",
                "load_link_generation" if generation is not None else "link_generation_max",
            )
        )
    else:
        slow = now < generation or lanes < width
        checks.append(
            Check(
                "PCIe link",
                f"generation {now:.0f} x{lanes:.0f} under load",
                f"generation {generation} x{width}",
                "warn" if slow else "ok",
                "the link runs under what card and slot can do" if slow else None,
            )
        )
    rate = (
        width * LINK_BYTES_PER_LANE[generation]
        if width and generation in LINK_BYTES_PER_LANE
        else None
    )
    for name, reading in (
        ("host to device", "host_to_device_bytes_per_s"),
        ("device to host", "device_to_host_bytes_per_s"),
    ):
        value = look.get(reading)
        if value is None:
            checks.append(look.unknown(name, reading))
        elif rate is None:
            checks.append(
                Check(
                    name,
                    si(value, "B/s"),
                    None,
                    "unknown",
                    "the link's generation and width are not known",
                )
            )
        else:
            verdict = least(value / rate, LINK_WARN, LINK_FAIL)
            checks.append(
                Check(
                    name,
                    si(value, "B/s"),
                    f"over {LINK_WARN:.0%} of {si(rate, 'B/s')} (pinned)",
                    verdict,
                    None
                    if verdict == "ok"
                    else f"{value / rate:.0%} of the link's rate: weights load slowly",
                )
            )
    return checks
