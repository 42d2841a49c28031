"""Checks of the card: which one it is, its health, its power and clocks."""

from bench.core.specs.gpu import Gpu
from bench.studies.acceptance.checks import Check, Look, Verdict, least
from bench.studies.acceptance.thresholds import CLOCK_FAIL, CLOCK_WARN, POWER_FAIL, POWER_WARN


def card(
    look: Look, device_name: str, gpu_name: str, gpu: Gpu | None, wanted: str | None
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


def health(look: Look) -> list[Check]:
    on_or_off = {True: "on", False: "off"}
    mig = look.flag("MIG", "mig_enabled", True, "fail", "a slice of a card, not a card", on_or_off)
    unseen = "memory errors go unseen, and rates are not those of a card with ECC"
    ecc = look.flag("ECC", "ecc_enabled", False, "warn", unseen, on_or_off)
    since_loaded = "uncorrected memory errors since the driver was loaded"
    ever = "this card had uncorrected memory errors"
    corrected = look.get("ecc_corrected")
    return [
        mig,
        ecc,
        _none_of(look, "ECC, uncorrected", "ecc_uncorrected", "fail", since_loaded),
        _none_of(look, "ECC, uncorrected, lifetime", "ecc_uncorrected_lifetime", "warn", ever),
        look.unknown("ECC, corrected", "ecc_corrected")
        if corrected is None
        else Check("ECC, corrected", str(corrected), None, "ok", None),
        _remapped_rows(look),
    ]


def _none_of(look: Look, name: str, reading: str, verdict: Verdict, why: str) -> Check:
    """A count of errors that must be 0."""
    count = look.get(reading)
    if count is None:
        return look.unknown(name, reading)
    return look.judge(name, str(count), "0", verdict if count else "ok", why)


def _remapped_rows(look: Look) -> Check:
    name, rows = "remapped rows", look.get("remapped_rows")
    if rows is None:
        return look.unknown(name, "remapped_rows")
    counts = " ".join(f"{k} {v}" for k, v in rows.items())
    if rows["failed"]:
        why = "a row could not be remapped: NVIDIA replaces such cards"
        return Check(name, counts, "none", "fail", why)
    if rows["pending"]:
        why = "a row waits to be remapped at the next reset"
        return Check(name, counts, "none", "fail", why)
    why = "rows were remapped for uncorrected errors"
    return look.judge(name, counts, "none", "warn" if rows["uncorrected"] else "ok", why)


def power(look: Look, gpu: Gpu | None) -> list[Check]:
    checks = []
    limit, default = (
        look.get("power_limit_w"),
        look.get("power_limit_default_w") or (gpu.tdp_w if gpu else None),
    )
    if limit is None or default is None:
        checks.append(look.unknown("power limit", "power_limit_w"))
    else:
        verdict = least(limit / default, POWER_WARN, POWER_FAIL)
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
        verdict = least(clock / most, CLOCK_WARN, CLOCK_FAIL)
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
