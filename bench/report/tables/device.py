"""What the device did beside the clock: memory, clocks, launches, attention, traffic.  A column
says whether it is measured, modelled or derived."""

from collections.abc import Iterable

from bench.core.units import seconds
from bench.report.numbers import binary, energy, traffic_rate, whole
from bench.report.tables.table import Cell, Column, Table, counted, measured, number, span, table
from bench.results.environment import Environment
from bench.results.readings import StageTelemetry, Summary, Timing
from bench.results.records import PointRecord, Probe


def memory_table(records: Iterable[PointRecord]) -> Table:
    """Weights and peaks by stage; on a CPU the peak of the whole process."""
    rows = []
    for r in records:
        if r.memory is None:
            continue
        weights = number(r.memory.weights, binary)
        for stage in r.timings:
            modelled = r.memory.weights + r.counts[stage].bytes_peak_activations
            peak = r.memory.by_stage.get(stage)
            read = (
                [peak.peak_allocated, peak.peak_reserved, peak.device_used, peak.activations]
                if peak
                else [None] * 4
            )
            cells = (number(size, binary) for size in (modelled, *read))
            rows.append([r.label, stage, weights, *cells])
        if not r.memory.by_stage and r.memory.peak_allocated is not None:
            whole_process = number(r.memory.peak_allocated, binary)
            rows.append([r.label, "whole process", weights, None, whole_process, None, None, None])
    return table(
        "Memory by stage",
        [
            "point",
            "stage",
            counted("weights"),
            counted("weights and peak of activations (modelled)"),
            measured("peak allocated"),
            measured("reserved"),
            measured("device in use after"),
            measured("activations (derived)"),
        ],
        rows,
    )


def traffic_table(records: Iterable[PointRecord]) -> Table:
    """Bytes moved, utilisation and energy of each stage."""
    rows = []
    for r in records:
        for stage, timing in r.timings.items():
            count, seen = r.counts[stage], (r.telemetry or {}).get(stage)
            fused, unfused = (
                b / timing.median_s for b in (count.bytes_modelled_min, count.bytes_modelled_max)
            )
            rows.append([r.label, stage, span(fused, unfused, traffic_rate), *_counters(seen)])
    return table(
        "Traffic, utilisation and energy",
        [
            "point",
            "stage",
            counted("modelled bytes over time (fused to unfused)"),
            measured("DRAM utilisation (GPM)"),
            measured("DRAM bytes/s (derived: utilisation x datasheet)"),
            measured("tensor pipes busy (GPM)"),
            measured("energy of a call (counter)"),
        ],
        rows,
    )


def _counters(seen: StageTelemetry | None) -> list[Cell]:
    if seen is None:
        return [number(None)] * 4
    return [
        number(seen.dram_util_percent, _percent),
        number(seen.dram_bytes_per_s_derived, traffic_rate),
        number(seen.tensor_util_percent, _percent),
        number(seen.energy.energy_j if seen.energy else None, energy),
    ]


def _percent(value: float) -> str:
    return f"{value:.3g} %"


def clocks_table(records: Iterable[PointRecord]) -> Table:
    """Median and range of each reading, for the stages that have any."""
    return table(
        "Clocks, power and temperature",
        [
            "point",
            "stage",
            measured("samples"),
            measured("SM clock, median (range)"),
            measured("memory clock"),
            measured("power reading"),
            measured("temperature"),
            Column("clocks held down", provenance="measured"),
        ],
        [
            [
                r.label,
                stage,
                number(seen.n, whole),
                _reading(seen.sm_clock_hz, 1e-6, "MHz"),
                _reading(seen.memory_clock_hz, 1e-6, "MHz"),
                _reading(seen.power_w, 1.0, "W"),
                _reading(seen.temperature_c, 1.0, "°C"),
                throttling(seen) or "no",
            ]
            for r in records
            for stage, seen in (r.telemetry or {}).items()
            if seen.n
        ],
    )


def _reading(summary: Summary | None, factor: float, unit: str) -> Cell:
    if summary is None:
        return number(None)
    low, middle, high = (f"{factor * v:.4g}" for v in (summary.min, summary.median, summary.max))
    text = f"{middle} {unit}" if low == high else f"{middle} {unit} ({low} to {high})"
    return Cell(text, summary.median)


def launches_table(records: Iterable[PointRecord]) -> Table:
    """The stages that were replayed as a CUDA graph."""
    rows = []
    for r in records:
        for stage, timing in r.timings.items():
            launch = timing.launch
            if launch is None or None in (launch.replay_s, launch.gap_s, launch.gap):
                continue
            rows.append(
                [
                    r.label,
                    stage,
                    number(launch.eager_s, seconds),
                    number(launch.replay_s, seconds),
                    Cell(f"{1e3 * launch.gap_s:.3g} ms, {launch.gap:.1%}", launch.gap_s),
                    "yes" if launch.host_bound else "no",
                ]
            )
    return table(
        "Launches: the same call replayed as a CUDA graph",
        [
            "point",
            "stage",
            measured("eager, median"),
            measured("graph replay, median"),
            measured("gap"),
            "host bound",
        ],
        rows,
    )


def attention_table(records: Iterable[PointRecord]) -> Table:
    """The kernel that ran, whatever the recipe asked for."""
    rows = []
    for r in records:
        ran = r.attention_ran
        if ran is None:
            continue
        fastest_first = sorted(ran.candidates_s.items(), key=lambda candidate: candidate[1])
        raced = ", ".join(f"{name} {seconds(s)}" for name, s in fastest_first)
        notes = "; ".join(filter(None, [raced, ran.reason]))
        kernel = short(ran.kernel) if ran.kernel else None
        rows.append([r.label, ran.backend, ran.chosen_by, kernel, notes or None])
    return table(
        "Attention: the kernel that ran",
        [
            "point",
            Column("backend that ran", provenance="measured"),
            "chosen by",
            "longest kernel",
            Column("candidates, seconds to the second attention's end", provenance="measured"),
        ],
        rows,
    )


def environment_table(environment: Environment) -> Table:
    """Every field that a record keeps of its environment."""
    fields = environment.model_dump().items()
    rows = [(name, None if value is None else str(value)) for name, value in fields]
    return table("Environment", ["what", "value"], rows)


def gaps(records: Iterable[PointRecord]) -> list[str]:
    """Why energy or utilisation was not read, each reason once."""
    reasons: dict[str, None] = {}
    for record in records:
        for seen in (record.telemetry or {}).values():
            if seen.reason:
                reasons[seen.reason] = None
            for name, why in seen.missing.items():
                reasons[f"{name}: {why}"] = None
    return list(reasons)


def memory_gaps(records: Iterable[PointRecord]) -> list[str]:
    """Why peak memory was not read, each reason once."""
    reasons = (r.memory.reason for r in records if r.memory is not None)
    return list(dict.fromkeys(filter(None, reasons)))


def no_replays(records: Iterable[PointRecord]) -> list[str]:
    """Why stages have no replay: each reason once, with its stages."""
    reasons: dict[str, dict[str, None]] = {}
    for record in records:
        for stage, timing in record.timings.items():
            if timing.launch is not None and timing.launch.reason:
                reasons.setdefault(timing.launch.reason, {})[stage] = None
    return [f"{', '.join(stages)}: {reason}" for reason, stages in reasons.items()]


KERNEL_NAME = 60  # characters of a kernel's name that a table holds; the record has all


def short(kernel: str) -> str:
    """A kernel's name without its template's arguments."""
    name = kernel.removeprefix("void ")
    return name if len(name) <= KERNEL_NAME else f"{name[:KERNEL_NAME]}…"


def grouped(record: PointRecord, stage: str) -> str:
    """Of a group: its slowest rank, and what that spent in collectives."""
    group = record.group
    if group is None:
        return ""
    slowest = group.slowest(stage)
    text = f"{len(group.ranks)} ranks, {group.mesh}; slowest rank {slowest.rank}"
    waited = (slowest.in_collectives_s or {}).get(stage)
    if waited is None:
        return text
    return f"{text}, {waited / record.timings[stage].median_s:.0%} in collectives"


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
