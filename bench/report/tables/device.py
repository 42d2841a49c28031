"""What the device did beside the clock: bandwidth across sizes, memory, traffic, throttling.  Rows
of plain text, for the terminal and for report.md alike; every column says whether it is measured,
modelled or derived."""

from collections.abc import Iterable

from bench.core.units import seconds, si
from bench.results.readings import StageTelemetry, Timing
from bench.results.records import MEMORY_PROBES, CeilingsRecord, PointRecord, Probe

Rows = list[list[str]]


def bandwidth_rows(record: CeilingsRecord) -> Rows:
    """[array, dtype, copy, triad, read, write]: bytes/s, measured, by size."""
    rates = {
        (p.dtype, p.shape["bytes"], p.kind): si(p.rate, "B/s")
        for p in record.probes
        if p.kind in MEMORY_PROBES
    }
    return [
        [binary(size), dtype, *(rates.get((dtype, size, kind), "–") for kind in MEMORY_PROBES)]
        for dtype, size in dict.fromkeys(key[:2] for key in rates)
    ]


def traffic_rows(records: Iterable[PointRecord]) -> Rows:
    """[point, stage, modelled bytes / time, DRAM utilisation, derived bytes/s, tensor pipes, joules
    a call]."""
    rows = []
    for record in records:
        for stage, timing in record.timings.items():
            count, seen = record.counts[stage], (record.telemetry or {}).get(stage)
            low, high = (
                si(b / timing.median_s, "B/s")
                for b in (count.bytes_modelled_min, count.bytes_modelled_max)
            )
            rows.append([record.label, stage, f"{low} to {high}", *_gpm(seen)])
    return rows


def _gpm(seen: StageTelemetry | None) -> list[str]:
    if seen is None:
        return ["–"] * 4
    return [
        _percent(seen.dram_util_percent),
        "–" if seen.dram_bytes_per_s_derived is None else si(seen.dram_bytes_per_s_derived, "B/s"),
        _percent(seen.tensor_util_percent),
        "–" if seen.energy is None else si(seen.energy.energy_j, "J"),
    ]


def gaps(records: Iterable[PointRecord]) -> list[str]:
    """Why energy or utilisation is not there, each reason once."""
    reasons: dict[str, None] = {}
    for record in records:
        for seen in (record.telemetry or {}).values():
            if seen.reason:
                reasons[seen.reason] = None
            for name, why in seen.missing.items():
                reasons[f"{name}: {why}"] = None
    return list(reasons)


def memory_rows(records: Iterable[PointRecord]) -> Rows:
    """[point, stage, weights, modelled peak, peak allocated, reserved, device, activations], by
    stage where there is CUDA."""
    rows = []
    for record in records:
        memory = record.memory
        if memory is None:
            continue
        for stage in record.timings:
            modelled = binary(memory.weights + record.counts[stage].bytes_peak_activations)
            peak = memory.by_stage.get(stage)
            measured = (
                [peak.peak_allocated, peak.peak_reserved, peak.device_used, peak.activations]
                if peak
                else [None] * 4
            )
            rows.append(
                [record.label, stage, binary(memory.weights), modelled, *map(binary, measured)]
            )
        if not memory.by_stage and memory.peak_allocated is not None:
            rows.append(
                [
                    record.label,
                    "whole process",
                    binary(memory.weights),
                    "–",
                    binary(memory.peak_allocated),
                    "–",
                    "–",
                    "–",
                ]
            )
    return rows


def clock_rows(records: Iterable[PointRecord]) -> Rows:
    """[point, stage, samples, SM clock, memory clock, power, temperature, throttled]; nothing where
    nothing was read."""
    rows = []
    for record in records:
        for stage, seen in (record.telemetry or {}).items():
            if seen.n:
                rows.append(
                    [
                        record.label,
                        stage,
                        str(seen.n),
                        _span(seen.sm_clock_hz, 1e-6, "MHz"),
                        _span(seen.memory_clock_hz, 1e-6, "MHz"),
                        _span(seen.power_w, 1.0, "W"),
                        _span(seen.temperature_c, 1.0, "°C"),
                        throttling(seen) or "no",
                    ]
                )
    return rows


def launch_rows(records: Iterable[PointRecord]) -> Rows:
    """[point, stage, eager, graph replay, gap, host bound]; nothing where nothing was replayed."""
    rows = []
    for record in records:
        for stage, timing in record.timings.items():
            launch = timing.launch
            if (
                launch is not None
                and launch.replay_s is not None
                and launch.gap_s is not None
                and launch.gap is not None
            ):
                rows.append(
                    [
                        record.label,
                        stage,
                        seconds(launch.eager_s),
                        seconds(launch.replay_s),
                        f"{1e3 * launch.gap_s:.3g} ms, {launch.gap:.1%}",
                        "yes" if launch.host_bound else "no",
                    ]
                )
    return rows


def no_replays(records: Iterable[PointRecord]) -> list[str]:
    """Why stages have no replay: each reason once, with the stages it holds for."""
    reasons: dict[str, dict[str, None]] = {}
    for record in records:
        for stage, timing in record.timings.items():
            if timing.launch is not None and timing.launch.reason:
                reasons.setdefault(timing.launch.reason, {})[stage] = None
    return [f"{', '.join(stages)}: {reason}" for reason, stages in reasons.items()]


def attention_rows(records: Iterable[PointRecord]) -> Rows:
    """[point, backend that ran, chosen by, kernel, seconds of the candidates]; nothing where
    nothing was recorded."""
    rows = []
    for record in records:
        ran = record.attention_ran
        if ran is not None:
            raced = ", ".join(
                f"{name} {seconds(s)}"
                for name, s in sorted(ran.candidates_s.items(), key=lambda c: c[1])
            )
            notes = "; ".join(filter(None, [raced, ran.reason]))
            rows.append(
                [
                    record.label,
                    ran.backend,
                    ran.chosen_by,
                    short(ran.kernel) if ran.kernel else "–",
                    notes or "–",
                ]
            )
    return rows


KERNEL_NAME = 60  # characters of a kernel's name that a table holds; the record has all


def short(kernel: str) -> str:
    """A kernel's name without its template's arguments."""
    name = kernel.removeprefix("void ")
    return name if len(name) <= KERNEL_NAME else f"{name[:KERNEL_NAME]}…"


def attending(record: PointRecord) -> str:
    """'attention by cudnn' where the recipe left the choice; '' where it names the backend, or
    nothing is known."""
    ran = record.attention_ran
    return "" if ran is None or ran.chosen_by == "recipe" else f"attention by {ran.backend}"


def backend(probe: Probe) -> str:
    """'auto (cudnn)': what an attention probe asked for and what ran; '' for other probes."""
    if probe.backend is None:
        return ""
    return (
        probe.backend
        if probe.backend_ran in (None, probe.backend)
        else f"{probe.backend} ({probe.backend_ran})"
    )


def launching(timing: Timing) -> str:
    """'host bound: a graph replay saves 34%'; '' where the device bounds the stage, or nothing is
    known."""
    launch = timing.launch
    return (
        f"host bound: a graph replay saves {launch.gap:.0%}"
        if launch is not None and launch.host_bound
        else ""
    )


def throttling(seen: StageTelemetry | None) -> str:
    """'throttled: hw_slowdown 12 % of the samples'; '' where nothing held the clocks down, or
    nothing is known."""
    if seen is None or not seen.throttle_fractions or not (seen.throttled or seen.power_limited):
        return ""
    reasons = ", ".join(
        f"{reason} {share:.0%}"
        for reason, share in seen.throttle_fractions.items()
        if reason != "gpu_idle" and (seen.throttled or reason == "sw_power_cap")
    )
    return f"{'throttled' if seen.throttled else 'power-limited'}: {reasons} of the samples"


def binary(size: int | None) -> str:
    """2 ** 28 -> '256 MiB'."""
    if size is None:
        return "–"
    for power, prefix in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size >= 2**power:
            return f"{size / 2**power:.4g} {prefix}"
    return f"{size} B"


def _span(summary, factor: float, unit: str) -> str:
    if summary is None:
        return "–"
    low, middle, high = (f"{factor * v:.4g}" for v in (summary.min, summary.median, summary.max))
    return f"{middle} {unit}" if low == high else f"{middle} {unit} ({low} to {high})"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g} %"
