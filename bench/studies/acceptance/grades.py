"""Is this node worth keeping?  Readings of `bench.measure.probes.doctor` held against the card's
datasheet and published rates.

Pure: readings in, verdict out.  Each check is ok, warn, fail, or unknown where a reading or an
expectation is missing. A fail makes the node one to swap, a warn makes it suspicious.

Thresholds are this project's choice, set between what healthy cards were published to differ by and
what sick ones did: a study of 3,500 GPUs saw the compute of one model of card spread by up to 34.5
% (259 H100 PCIe; College of William & Mary, Jefferson Lab and Silicon Data, 6,800 SiliconMark runs
at 11 providers), so a tenth under the published range is worth a look and a quarter is worth
another card.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from bench.core.known_faults import slow_conv3d
from bench.core.specs.gpu import Gpu
from bench.core.units import si

RATE_WARN, RATE_FAIL = 0.9, 0.75  # of the low end of the published range
# Lowest shares of the datasheet among the published rates in configs/gpus, for cards with none of
# their own; they only warn.
DATASHEET_GEMM, DATASHEET_COPY = (
    0.776,
    0.767,
)  # B200's MAMF; H100 SXM's untuned copy kernel (nccl issue 1264)
CLOCK_WARN, CLOCK_FAIL = (
    0.6,
    0.4,
)  # of the maximum; at its power limit a healthy card clocks down too
POWER_WARN, POWER_FAIL = 0.95, 0.75  # limit against the default
LINK_WARN, LINK_FAIL = 0.7, 0.35  # of the link's rate: an H100 SXM reached 0.87 to and 0.74
# from the device with pinned memory (aigatech/vpbenchmarking); half the lanes give under 0.5
REPEAT_WARN = 0.1  # two short GEMM runs differ by
LOAD_WARN = 0.5  # of the cores are busy before anything is measured
FOREIGN_MEMORY_WARN = 0.02  # of the card's memory is held by others
IDLE_UTILISATION_WARN = 0.05  # of the card's time, before anything is measured
DISK_WARN_BYTES, HOST_MEMORY_WARN_BYTES = 2e9, 4e9
CLOCK_TICK_WARN_S = 1e-5  # a thousandth of the ten milliseconds that small stages take
LINK_BYTES_PER_LANE = {
    1: 0.25e9,
    2: 0.5e9,
    3: 0.985e9,
    4: 1.969e9,
    5: 3.938e9,
    6: 7.563e9,
}  # PCI-SIG, each way

Verdict = Literal["ok", "warn", "fail", "unknown"]


@dataclass(frozen=True)
class Check:
    """One thing looked at."""

    name: str
    measured: str | None
    expected: str | None
    verdict: Verdict
    why: str | None
    """Said wherever the verdict is not ok."""


@dataclass(frozen=True)
class Acceptance:
    """All checks, and what they come to."""

    verdict: Literal["keep", "suspicious", "swap"]
    reasons: list[str]
    checks: list[Check]

    def as_dict(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "reasons": self.reasons,
            "checks": [asdict(c) for c in self.checks],
        }


def accept(
    readings: Mapping[str, Any],
    device: str,
    device_name: str,
    gpu_name: str,
    gpu: Gpu | None,
    *,
    wanted: str | None = None,
) -> Acceptance:
    """Judge one node.  readings: {values, missing}; gpu_name: its name in configs/gpus, gpu: that
    entry, None for a card that has none; wanted: the entry that was ordered, where it was said."""
    look = _Look(readings)
    if device == "cuda":
        checks = [
            *_card(look, device_name, gpu_name, gpu, wanted),
            *_health(look),
            *_power(look, gpu),
            *_rates(look, gpu),
            *_links(look),
            *_company(look),
            _versions(look),
            _torch(look),
        ]
    else:
        checks = [*_cpu_wanted(device_name, wanted), _governor(look)]
    return conclude([*checks, *_host(look, device)])


def conclude(checks: list[Check]) -> Acceptance:
    """The worst check decides."""
    verdicts = {c.verdict for c in checks}
    verdict = "swap" if "fail" in verdicts else "suspicious" if "warn" in verdicts else "keep"
    order = {"fail": 0, "warn": 1}
    reasons = [
        f"{c.name}: {c.why}"
        for c in sorted(checks, key=lambda c: order.get(c.verdict, 2))
        if c.verdict in order
    ]
    return Acceptance(verdict, reasons, checks)


def broken(outcome: str, reason: str) -> Acceptance:
    """The examination itself ended badly: a card that cannot multiply for five seconds is no card
    to rent."""
    return conclude([Check("examination", outcome, "ok", "fail", reason)])


class _Look:
    """Readings, and checks of them."""

    def __init__(self, readings: Mapping[str, Any]):
        self.values, self.missing = readings["values"], readings["missing"]

    def get(self, name: str) -> Any:
        return self.values.get(name)

    def unknown(
        self, check: str, reading: str, expected: str | None = None, verdict: Verdict = "unknown"
    ) -> Check:
        return Check(
            check, None, expected, verdict, self.missing.get(reading, "not read on this device")
        )

    def flag(
        self,
        check: str,
        reading: str,
        bad: Any,
        verdict: Verdict,
        why: str,
        words: Mapping[Any, str],
    ) -> Check:
        """A reading that must not be `bad`."""
        value = self.get(reading)
        if value is None:
            return self.unknown(check, reading)
        good = " or ".join(word for key, word in words.items() if key != bad)
        return Check(
            check,
            words[value],
            good,
            verdict if value == bad else "ok",
            why if value == bad else None,
        )


def _card(
    look: _Look, device_name: str, gpu_name: str, gpu: Gpu | None, wanted: str | None
) -> list[Check]:
    if gpu is None:
        return [
            Check(
                "card",
                device_name,
                wanted,
                "fail" if wanted else "unknown",
                "no entry of configs/gpus lists this name"
                + (f", so it is not the {wanted} that was ordered" if wanted else ""),
            )
        ]
    wrong = wanted is not None and wanted != gpu_name
    checks = [
        Check(
            "card",
            f"{device_name} ({gpu_name})",
            wanted or gpu_name,
            "fail" if wrong else "ok",
            f"ordered {wanted}, got {gpu_name}" if wrong else None,
        )
    ]
    form, limit = form_of(device_name, gpu), look.get("power_limit_default_w")
    link = (
        f", PCIe {look.get('link_generation_max')} x{look.get('link_width_max')}"
        if look.get("link_width_max")
        else ""
    )
    several = (
        len(gpu.device_names) > 1
    )  # one entry for SXM and PCIe: the datasheet's TDP is the SXM's
    if limit is None or gpu.tdp_w is None:
        checks.append(look.unknown("form", "power_limit_default_w", form))
    else:
        under, over = limit < POWER_WARN * gpu.tdp_w and not several, limit > gpu.tdp_w / POWER_WARN
        checks.append(
            Check(
                "form",
                f"{form or 'not said by its name'}, default limit {limit:.0f} W{link}",
                f"{'at most ' if several else ''}{gpu.tdp_w:.0f} W",
                "warn" if under or over else "ok",
                f"its default power limit is not that of {gpu_name}: another variant of the card"
                if under or over
                else None,
            )
        )
    return checks


def form_of(device_name: str, gpu: Gpu) -> str | None:
    """SXM, PCIe or NVL, from the device's own name or else from its datasheet's."""
    for text in (device_name, gpu.description):
        for word in ("SXM", "NVL", "PCIE"):
            if word in text.upper():
                return {"PCIE": "PCIe"}.get(word, word)
    return None


def _health(look: _Look) -> list[Check]:
    checks = [
        look.flag(
            "MIG",
            "mig_enabled",
            True,
            "fail",
            "a slice of a card, not a card",
            {True: "on", False: "off"},
        ),
        look.flag(
            "ECC",
            "ecc_enabled",
            False,
            "warn",
            "memory errors go unseen, and rates are not those of a card with ECC",
            {True: "on", False: "off"},
        ),
    ]
    for name, reading, verdict, why in (
        (
            "ECC, uncorrected",
            "ecc_uncorrected",
            "fail",
            "uncorrected memory errors since the driver was loaded",
        ),
        (
            "ECC, uncorrected, lifetime",
            "ecc_uncorrected_lifetime",
            "warn",
            "this card had uncorrected memory errors",
        ),
    ):
        count = look.get(reading)
        checks.append(
            look.unknown(name, reading)
            if count is None
            else Check(name, str(count), "0", verdict if count else "ok", why if count else None)
        )
    corrected, rows = look.get("ecc_corrected"), look.get("remapped_rows")
    checks.append(
        look.unknown("ECC, corrected", "ecc_corrected")
        if corrected is None
        else Check("ECC, corrected", str(corrected), None, "ok", None)
    )
    if rows is None:
        checks.append(look.unknown("remapped rows", "remapped_rows"))
    else:
        bad = rows["failed"] or rows["pending"]
        why = (
            "a row could not be remapped: NVIDIA replaces such cards"
            if rows["failed"]
            else "a row waits to be remapped at the next reset"
            if rows["pending"]
            else "rows were remapped for uncorrected errors"
            if rows["uncorrected"]
            else None
        )
        checks.append(
            Check(
                "remapped rows",
                " ".join(f"{k} {v}" for k, v in rows.items()),
                "none",
                "fail" if bad else "warn" if rows["uncorrected"] else "ok",
                why,
            )
        )
    return checks


def _power(look: _Look, gpu: Gpu | None) -> list[Check]:
    checks = []
    limit, default = (
        look.get("power_limit_w"),
        look.get("power_limit_default_w") or (gpu.tdp_w if gpu else None),
    )
    if limit is None or default is None:
        checks.append(look.unknown("power limit", "power_limit_w"))
    else:
        verdict = _least(limit / default, POWER_WARN, POWER_FAIL)
        checks.append(
            Check(
                "power limit",
                f"{limit:.0f} W",
                f"{default:.0f} W",
                verdict,
                None
                if verdict == "ok"
                else f"capped to {limit / default:.0%} of the card's default",
            )
        )
    clock, most = look.get("load_sm_clock_hz"), look.get("sm_clock_max_hz")
    if clock is None or most is None:
        checks.append(
            look.unknown(
                "clock under load", "load_sm_clock_hz" if clock is None else "sm_clock_max_hz"
            )
        )
    else:
        verdict = _least(clock / most, CLOCK_WARN, CLOCK_FAIL)
        watts = look.get("load_power_w")
        checks.append(
            Check(
                "clock under load",
                f"{clock / 1e6:.0f} MHz" + (f" at {watts:.0f} W" if watts else ""),
                f"over {CLOCK_WARN:.0%} of {most / 1e6:.0f} MHz",
                verdict,
                None
                if verdict == "ok"
                else f"{clock / most:.0%} of its maximum under five seconds of GEMMs",
            )
        )
    reasons, heat = look.get("load_throttle_reasons"), look.get("load_temperature_c")
    if reasons is None:
        checks.append(look.unknown("throttling", "load_throttle_reasons"))
    else:
        bad = [
            r for r in reasons if r != "sw_power_cap"
        ]  # GEMMs reach the power limit: that is its normal state
        checks.append(
            Check(
                "throttling",
                (", ".join(reasons) or "none") + (f" at {heat:.0f} °C" if heat else ""),
                "none, or sw_power_cap",
                "warn" if bad else "ok",
                f"{', '.join(bad)} under load: cooling or supply is at its end" if bad else None,
            )
        )
    return checks


def _rates(look: _Look, gpu: Gpu | None) -> list[Check]:
    gemm, copy = look.get("gemm"), look.get("copy_bytes_per_s")
    checks = [
        _rate(
            look,
            "GEMM",
            "gemm",
            gemm and gemm["flops_per_s"],
            "FLOP/s",
            gpu,
            "gemm_bf16_flops_per_s",
            gpu.peak_flops_per_s.get("bf16") if gpu else None,
            DATASHEET_GEMM,
        ),
        _rate(
            look,
            "copy",
            "copy_bytes_per_s",
            copy,
            "B/s",
            gpu,
            "copy_bytes_per_s",
            gpu.bandwidth_bytes_per_s if gpu else None,
            DATASHEET_COPY,
        ),
        _repeatability(look),
    ]
    sustained = look.get("gemm_sustained_flops_per_s")
    if sustained is not None and gemm:
        checks.append(
            Check(
                "GEMM, sustained",
                f"{si(sustained, 'FLOP/s')}, {sustained / gemm['flops_per_s']:.0%} of the burst",
                None,
                "ok",
                None,
            )
        )
    return checks


def _rate(
    look: _Look,
    name: str,
    reading: str,
    value: float | None,
    unit: str,
    gpu: Gpu | None,
    usual_name: str,
    sheet: float | None,
    share: float,
) -> Check:
    if value is None:  # not able to do the one thing it is rented for
        return look.unknown(name, reading, verdict="warn")
    usual = gpu.usual.get(usual_name) if gpu else None  # type: ignore[call-overload]
    if usual is not None:
        verdict = _least(value / usual.low, RATE_WARN, RATE_FAIL)
        span = (
            si(usual.low, unit, 4)
            if usual.low == usual.high
            else f"{si(usual.low, unit, 4)} to {si(usual.high, unit, 4)}"
        )
        return Check(
            name,
            si(value, unit),
            f"{span} ({usual.source})",
            verdict,
            None
            if verdict == "ok"
            else f"{value / usual.low:.0%} of what such cards usually reach",
        )
    if sheet is not None:
        low = value < RATE_WARN * share * sheet
        return Check(
            name,
            si(value, unit),
            f"about {si(share * sheet, unit)} (extrapolated: {share:.1%} of the datasheet, "
            "the lowest published share of other cards)",
            "warn" if low else "ok",
            f"{value / sheet:.0%} of the datasheet" if low else None,
        )
    return Check(
        name, si(value, unit), None, "unknown", "no published rate and no datasheet for this device"
    )


def _repeatability(look: _Look) -> Check:
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


def _links(look: _Look) -> list[Check]:
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
            verdict = _least(value / rate, LINK_WARN, LINK_FAIL)
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


def _company(look: _Look) -> list[Check]:
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


def _versions(look: _Look) -> Check:
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


def _torch(look: _Look) -> Check:
    version = look.get("torch")
    if version is None:
        return look.unknown("torch", "torch")
    fault = slow_conv3d(version)
    return Check("torch", version, "any but 2.9", "warn" if fault else "ok", fault)


def _cpu_wanted(device_name: str, wanted: str | None) -> list[Check]:
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


def _governor(look: _Look) -> Check:
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


def _host(look: _Look, device: str) -> list[Check]:
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
        checks.append(_repeatability(look))
    return checks


def _least(share: float, warn: float, fail: float) -> Verdict:
    return "ok" if share >= warn else "warn" if share >= fail else "fail"
