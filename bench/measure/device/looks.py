"""Looks at the card, summed up for a stage: medians, throttling, a thinned series, energy."""

import statistics
from dataclasses import dataclass
from typing import Any

from bench.results.readings import READINGS, UTILISATIONS, Energy, Series, StageTelemetry, Summary

MAX_SERIES = 200
NOTED = 0.05  # share of the samples over which a throttle reason is held against the stage
SLOWDOWNS = {"hw_slowdown", "sw_thermal_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown"}


@dataclass(frozen=True)
class Tick:
    """One look at the card."""

    t_s: float
    stage: str
    call: int
    """Which call of its stage was under way, from 0; those of the energy window are numbered on."""
    values: dict[str, float]
    reasons: list[str] | None
    missing: dict[str, str]


@dataclass(frozen=True)
class Window:
    """Counter and GPM around one long call."""

    call: int
    """Its number, as in Tick."""
    seconds: float
    joules: float | None
    found: dict[str, float]
    """Utilisations."""
    missing: dict[str, str]


def summarised(used: list[Tick], missing: dict[str, str], **beside: Any) -> StageTelemetry:
    """A stage's telemetry from the looks that count, with why each reading without a value has
    none.  beside: the fields that no look gives."""
    summaries = {
        name: _summary([t.values[name] for t in used if name in t.values]) for name in READINGS
    }
    fractions = _fractions([t.reasons for t in used if t.reasons is not None])
    absent = [name for name in READINGS if summaries[name] is None]
    for name in absent if fractions is not None else [*absent, "throttle_fractions"]:
        said = [t.missing[name] for t in used if name in t.missing]
        missing[name] = said[-1] if said else "the stage was over before the first sample"
    throttled = power_limited = None
    if fractions is not None:
        throttled = any(fractions.get(reason, 0.0) > NOTED for reason in SLOWDOWNS)
        power_limited = fractions.get("sw_power_cap", 0.0) > NOTED
    return StageTelemetry(
        reason=None,
        missing=missing,
        n=len(used),
        **summaries,
        throttle_fractions=fractions,
        throttled=throttled,
        power_limited=power_limited,
        series=_series(used) if used else None,
        **beside,
    )


def nothing(reason: str) -> StageTelemetry:
    """Telemetry of a stage that could not be watched."""
    return StageTelemetry(
        reason=reason,
        missing={},
        n=0,
        sampled_over=None,
        **dict.fromkeys(READINGS),
        throttle_fractions=None,
        throttled=None,
        power_limited=None,
        series=None,
        energy=None,
        **dict.fromkeys(UTILISATIONS),
        dram_bytes_per_s_derived=None,
    )


def _summary(values: list[float]) -> Summary | None:
    return (
        Summary(min=min(values), median=statistics.median(values), max=max(values), n=len(values))
        if values
        else None
    )


def _fractions(samples: list[list[str]]) -> dict[str, float] | None:
    if not samples:
        return None
    seen = dict.fromkeys(reason for reasons in samples for reason in reasons)
    return {reason: sum(reason in reasons for reasons in samples) / len(samples) for reason in seen}


def _series(ticks: list[Tick]) -> Series:
    step = -(-len(ticks) // MAX_SERIES)  # rounded up
    kept = ticks[::step]
    return Series(
        t_s=[round(t.t_s - ticks[0].t_s, 3) for t in kept],
        throttle_reasons=[t.reasons for t in kept],
        **{name: [t.values.get(name) for t in kept] for name in READINGS},
    )


def energy_over(windows: list[Window]) -> tuple[Energy | None, dict[str, float], dict[str, str]]:
    """Energy of the calls whose counter could be read, and utilisations weighted by time."""
    missing: dict[str, str] = {}
    for window in windows:
        missing |= window.missing
    counted = [w for w in windows if w.joules is not None]
    energy = None
    if counted:
        joules, seconds = sum(w.joules or 0.0 for w in counted), sum(w.seconds for w in counted)
        energy = Energy(
            energy_j=joules / len(counted),
            power_w=joules / seconds,
            calls=len(counted),
            window_s=seconds,
        )
        missing.pop("energy", None)
    found: dict[str, float] = {}
    for name in UTILISATIONS:
        read = [w for w in windows if name in w.found]
        if read:
            found[name] = sum(w.found[name] * w.seconds for w in read) / sum(
                w.seconds for w in read
            )
            missing.pop(name, None)
    return energy, found, missing
