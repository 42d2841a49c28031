"""A profile as tables, a closing line and a document."""

from typing import Any

from bench.core.units import seconds
from bench.report.numbers import percent, precise_seconds, three, traffic, work, work_rate
from bench.report.profile.rows import Row, kind_rows, module_rows, operator_rows
from bench.report.tables.table import Cell, Table, counted, measured, number, span, table
from bench.results.profile import Profile

NO_OPERATOR = "in no operator"


def modules_table(profile: Profile) -> Table:
    """By module and kind of operator; the last rows close the sum to the step."""
    work_columns = [
        counted("FLOPs"),
        measured("rate"),
        measured("share of ceiling"),
        counted("bytes, modelled", detail=True),
        "bound by",
    ]
    return table(
        f"{profile.stage} of {profile.model} on {profile.workload}, {profile.recipe}",
        ["module", "kind", measured("calls"), measured("time"), measured("share"), *work_columns],
        [*(_cells(row, profile) for row in module_rows(profile)), *_closing(profile)],
        note="blocks of a list together",
    )


def operators_table(profile: Profile) -> Table:
    """By operator; on CUDA by kernel."""
    what = "kernel" if profile.environment.device == "cuda" else "operator"
    return table(
        f"By {what}, wherever it ran",
        [what, "kind", measured("calls"), measured("time"), measured("share")],
        [_times(row, profile) for row in operator_rows(profile)],
    )


def profile_line(profile: Profile) -> str:
    """Where the time goes, in a sentence."""
    kinds = [row for row in kind_rows(profile) if row.seconds > 0.01 * profile.step_s]
    parts = [f"{row.seconds / profile.step_s:.0%} {row.name}" for row in kinds]
    rest = f"{profile.residual_s / profile.step_s:.0%} {NO_OPERATOR}"
    reached, ceiling = profile.flops / profile.step_s, profile.rates.gemm_flops_per_s
    longer = profile.profiled_s / profile.step_s - 1
    busy = (
        "; warning: its operators took longer than a plain call, so the machine was busy: profile"
        " again when it is idle"
        if profile.residual_s < -0.05 * profile.step_s
        else ""
    )
    return (
        f"{seconds(profile.step_s)} a call: {', '.join([*parts, rest])}; {work_rate(reached)} of"
        f" {work_rate(ceiling)} that GEMM reaches here; the profiler makes a call {longer:.1%}"
        f" longer, which is taken off{busy}"
    )


def profile_document(profile: Profile, files: dict[str, str]) -> dict[str, Any]:
    """`profile --json`."""
    return {
        **profile.model_dump(mode="json"),
        "in_operators_s": profile.in_operators_s,
        "residual_s": profile.residual_s,
        "files": files,
    }


def _cells(row: Row, profile: Profile) -> list[Cell | str]:
    rate = row.flops / row.seconds if row.flops and row.seconds else None
    share = row.share_of_ceiling(profile.rates)
    return [
        *_times(row, profile),
        number(row.flops if row.flops else None, work),
        number(rate, work_rate),
        number(share, percent(), "of the GEMM rate or the copy rate, whichever takes longer"),
        span(row.bytes_min, row.bytes_max, traffic) if row.bytes_max else "",
        row.bound(profile.rates),
    ]


def _times(row: Row, profile: Profile) -> list[Cell | str]:
    return [
        row.name,
        row.kind,
        number(row.calls, three),
        number(row.seconds, precise_seconds, f"mean of {profile.calls} profiled calls"),
        number(row.seconds / profile.step_s, percent()),
    ]


def _closing(profile: Profile) -> list[list[Cell | str]]:
    idle = "an idle device" if profile.environment.device == "cuda" else "Python and dispatch"
    rest = [
        NO_OPERATOR,
        idle,
        "",
        number(profile.residual_s, precise_seconds, "the step less all rows above"),
        number(profile.residual_s / profile.step_s, percent()),
    ]
    whole = profile.flops / profile.step_s
    total = [
        "the whole call",
        "",
        "",
        number(profile.step_s, precise_seconds, "median of calls without the profiler"),
        number(1.0, percent()),
        number(profile.flops, work),
        number(whole, work_rate),
        number(whole / profile.rates.gemm_flops_per_s, percent()),
    ]
    return [[*rest, *[""] * 5], [*total, "", ""]]
