"""A LoadGen run beside our own times and MLPerf's published rows."""

from collections.abc import Sequence
from typing import Any

from bench.core.units import seconds
from bench.report.numbers import percent, three, whole
from bench.report.tables.table import Table, claimed, measured, number, table
from bench.studies.loadgen.published import PublishedRow
from bench.studies.loadgen.scenarios import PERCENTILES, Result


def loadgen_table(result: Result, label: str) -> Table:
    """LoadGen's summary, and what this side saw."""
    own, said = result.own, result.summary
    rows: list[list[Any]] = []
    for share in PERCENTILES:
        ours, theirs = own.percentile_s(share), said.percentiles_s.get(share)
        apart = None if theirs is None else ours / theirs - 1
        rows.append(
            [
                f"latency, {share:.0%} percentile",
                number(theirs, seconds),
                number(ours, seconds),
                number(apart, percent(2)),
            ]
        )
    rate = said.samples_per_s
    apart = None if rate is None else own.samples_per_s / rate - 1
    rows.append(
        [
            "videos a second",
            number(rate, three),
            number(own.samples_per_s, three),
            number(apart, percent(2)),
        ]
    )
    return table(
        f"{said.scenario}: {label}, {len(own.latencies_s):,} videos,"
        f" {'VALID' if said.valid else 'INVALID'}",
        ["", measured("LoadGen"), measured("here"), "apart"],
        rows,
    )


def mlperf_table(rows: Sequence[PublishedRow], scenario: str) -> Table:
    """Published rows of a scenario."""
    return table(
        f"MLPerf {scenario}: Wan2.2-T2V-A14B, 81 frames of 1280x720, 20 steps with guidance",
        ["system", claimed("GPUs"), "dtype", claimed("seconds"), claimed("GPU-seconds a video")],
        [
            [
                row.gpu,
                number(row.gpus, whole),
                row.dtype,
                number(row.seconds, seconds),
                number(row.gpu_seconds, seconds),
            ]
            for row in rows
        ],
        note="SingleStream: 90th percentile of latency; Offline: one over the rate",
    )


def loadgen_document(result: Result, rows: Sequence[PublishedRow]) -> dict[str, Any]:
    """`loadgen --json`."""
    own, said = result.own, result.summary
    return {
        "scenario": said.scenario,
        "valid": said.valid,
        "videos": len(own.latencies_s),
        "loadgen": {
            "percentiles_s": said.percentiles_s,
            "samples_per_s": said.samples_per_s,
            "summary": said.lines,
        },
        "here": {
            "percentiles_s": {share: own.percentile_s(share) for share in PERCENTILES},
            "samples_per_s": own.samples_per_s,
            "latencies_s": own.latencies_s,
        },
        "provenance": "measured",
        "published": [vars(row) | {"provenance": "claimed"} for row in rows],
        "folder": str(result.folder),
    }
