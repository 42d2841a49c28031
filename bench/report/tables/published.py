"""A fit to somebody else's table: the document of `calibrate --from --json`, and its tables."""

from collections import Counter
from dataclasses import asdict
from typing import Any

import numpy as np

from bench.calibrate.published.fit import at_bound
from bench.calibrate.published.held_out import PublishedFit, RowErrors
from bench.calibrate.published.names import Scope
from bench.calibrate.published.table import PublishedTable
from bench.core.quantity import Quantity
from bench.report.numbers import digits, percent, whole, work_rate
from bench.report.tables.table import Cell, Table, number, numbers, quantity, table

RATES = ("linear_efficiency", "attention_efficiency", "vae_efficiency")
Z_90 = 1.645
ALL_STAGES = Scope(vae=True, text=True, per="video")


def published_document(
    read: PublishedTable, fits: list[PublishedFit], unfitted: dict[str, str]
) -> dict[str, Any]:
    """The fit with most rows at the top, every kind of card under by_gpu."""
    by_gpu = {fit.gpu.name: _fit_document(fit) for fit in fits}
    return {
        **by_gpu[fits[0].gpu.name],
        "by_gpu": by_gpu,
        "unfitted": unfitted,
        "aliases": {"models": read.models, "gpus": read.gpus},
        "notes": read.notes,
        "skipped": [asdict(s) for s in read.skipped],
    }


def _fit_document(fit: PublishedFit) -> dict[str, Any]:
    return {
        "gpu": fit.gpu.name,
        "provenance": "fitted",
        "measured_by": "others: the table's latencies are claimed",
        "parameters": _parameters(fit),
        "free": [fit.model.names[i] for i in fit.fitted.free],
        "fixed": {
            p.name: _fixed(fit, i)
            for i, p in enumerate(fit.model.parameters)
            if i not in fit.fitted.free
        },
        "leave_one_out": _errors(fit.leave_one_out),
        "leave_one_size_out": _errors(fit.leave_one_size_out),
        "leave_one_model_out": _errors(fit.leave_one_model_out),
        "upward": _errors(fit.upward),
        "constant_mfu_baseline": {
            **(_errors(fit.constant_mfu) or {}),
            "value": fit.constant_mfu_value,
            "leave_one_size_out": _errors(fit.constant_mfu_by_size),
            "leave_one_model_out": _errors(fit.constant_mfu_by_model),
            "upward": _errors(fit.constant_mfu_upward),
        },
        "noise": fit.fitted.noise,
        "model_spread": fit.fitted.tau,
        "model_factors": {name: float(np.exp(f)) for name, f in fit.fitted.factors.items()},
        "peak_flops_per_s": fit.model.peak,
        "bandwidth_bytes_per_s": fit.model.bandwidth,
        "converged": fit.fitted.converged,
        "points": len(fit.rows),
        "rows": [
            {
                "id": row.id,
                "model": row.model,
                "named": row.named,
                "width": row.width,
                "height": row.height,
                "frames": row.frames,
                "forwards": row.forwards,
                "scope": str(row.scope),
                "flops": float(flops),
                "measured_s": float(t),
                "fitted_s": float(p),
                "ratio": float(p / t),
                "left_out_s": float(out) if out == out else None,
            }
            for row, flops, t, p, out in zip(
                fit.rows, fit.flops, fit.measured, fit.predicted, fit.left_out, strict=True
            )
        ],
    }


def _fixed(fit: PublishedFit, i: int) -> dict[str, Any]:
    """The value of a parameter that is not free, and why."""
    p, value = fit.model.parameters[i], float(fit.fitted.theta[i])
    if fit.tied(i):
        return {"same_as": fit.model.names[0], "why": "two rates could not be told apart"}
    if value != p.held:
        return {
            "value": value,
            "low": value,
            "high": value,
            "unit": p.unit,
            "why": "one rate for everything",
        }
    return {
        "value": value,
        "low": p.possible[0],
        "high": p.possible[1],
        "unit": p.unit,
        "why": p.why,
    }


def _parameters(fit: PublishedFit) -> dict[str, dict[str, Any]]:
    out = {}
    for i, p in enumerate(fit.model.parameters):
        value, low, high = fit.interval(i)
        out[p.name] = {
            "value": value,
            "low": low,
            "high": high,
            "unit": p.unit,
            "at_bound": at_bound(fit.model, fit.fitted, i),
            "free": i in fit.fitted.free,
            **({"flops_per_s": value * fit.model.peak} if p.name in RATES else {}),
        }
    return out


def _errors(e: RowErrors | None) -> dict[str, Any] | None:
    return e.model_dump() if e else None


def readings_tables(read: PublishedTable, unfitted: dict[str, str]) -> list[Table]:
    """What each name was read as, and what was left out and why."""
    names = [
        *(("model", theirs, ours) for theirs, ours in read.models.items()),
        *(("gpu", theirs, ours) for theirs, ours in read.gpus.items()),
    ]
    reasons: dict[str, list[str]] = {}
    for skipped in read.skipped:
        reasons.setdefault(skipped.reason, []).append(skipped.id)
    most_first = sorted(reasons.items(), key=lambda item: -len(item[1]))
    tables = [
        table(
            "Names of the table, and how they were read", ["kind", "in the table", "read as"], names
        ),
        table("Readings", ["note"], [(note,) for note in read.notes]),
        table(
            f"{len(read.skipped)} rows that cannot be used",
            ["reason", numbers("rows"), "which"],
            [(reason, number(len(ids), whole), ", ".join(ids)) for reason, ids in most_first],
        ),
        table("Kinds of card that were not fitted", ["gpu", "reason"], unfitted.items()),
    ]
    return [tables[0], *(t for t in tables[1:] if t.rows)]


def published_tables(fit: PublishedFit) -> list[Table]:
    """Parameters, spread of the models, errors, rows."""
    return [_parameters_table(fit), _scatter_table(fit), _held_out_table(fit), _rows_table(fit)]


def _parameters_table(fit: PublishedFit) -> Table:
    rows = []
    for i, p in enumerate(fit.model.parameters):
        value, low, high = fit.interval(i)
        free = i in fit.fitted.free
        rate = f" = {work_rate(value * fit.model.peak)}" if p.name in RATES else ""
        known = quantity(Quantity(value, low, high)) if free else number(value)
        rows.append((p.name, known, p.unit + rate, _how(fit, i)))
    return table(
        f"{fit.gpu.name}: {len(fit.fitted.free)} parameters fitted to {len(fit.rows)} rows",
        ["parameter", numbers("value (90 %)"), "unit", "how"],
        rows,
        note="free: those under which the table is most probable",
    )


def _how(fit: PublishedFit, i: int) -> str:
    """How a parameter got its value."""
    if i in fit.fitted.free:
        return "fitted at its bound" if at_bound(fit.model, fit.fitted, i) else "fitted"
    if fit.tied(i):
        return "fixed: the same as linear_efficiency"
    return f"fixed: {_fixed(fit, i)['why']}"


def _held_out_table(fit: PublishedFit) -> Table:
    groups = [
        ("each row", fit.leave_one_out, fit.constant_mfu),
        ("each model's size and frames", fit.leave_one_size_out, fit.constant_mfu_by_size),
        ("each model", fit.leave_one_model_out, fit.constant_mfu_by_model),
        ("the larger half by FLOPs", fit.upward, fit.constant_mfu_upward),
    ]
    return table(
        f"{fit.gpu.name}: error on rows that took no part in the fit, its choice of parameters"
        " included",
        [
            "held out",
            numbers("mean"),
            numbers("median"),
            numbers("worst"),
            numbers("rows"),
            numbers("one utilisation, mean"),
            "worst row",
        ],
        [[name, *_error_cells(error, baseline)] for name, error, baseline in groups],
        note=f"beside it that of one utilisation for all FLOPs, {fit.constant_mfu_value:.3f}, held"
        " out alike",
    )


def _error_cells(error: RowErrors | None, baseline: RowErrors | None) -> list[Cell | str | None]:
    if error is None:
        return [*[None] * 5, "too few rows, or one group"]
    return [
        *(number(share, percent()) for share in (error.mean, error.median, error.worst)),
        number(error.n, whole),
        number(baseline.mean if baseline else None, percent()),
        error.worst_row,
    ]


def _rows_table(fit: PublishedFit) -> Table:
    five = digits(5)
    held_out = [out if out == out else None for out in fit.left_out]  # NaN where not predicted
    return table(
        f"{fit.gpu.name}: rows",
        [
            "row",
            "model",
            "size x frames",
            numbers("forwards"),
            "holds",
            numbers("measured s"),
            numbers("fitted s"),
            numbers("ratio"),
            numbers("left out s"),
        ],
        [
            [
                r.id,
                r.model,
                f"{r.width}x{r.height}x{r.frames}",
                number(r.forwards, digits(6)),
                "all stages" if r.scope == ALL_STAGES else str(r.scope),
                number(t, five),
                number(p, five),
                number(p / t, lambda ratio: f"{ratio:.3f}"),
                number(out, five),
            ]
            for r, t, p, out in zip(fit.rows, fit.measured, fit.predicted, held_out, strict=True)
        ],
        note="measured by others; fitted, and by a fit without the row",
    )


def _scatter_table(fit: PublishedFit) -> Table:
    """Differences of the models that the physics leaves: the factor of each, and noise."""
    count = Counter(row.model for row in fit.rows)
    spread, noise = fit.fitted.tau, fit.fitted.noise
    if len(count) == 1 or len(count) == len(fit.rows):
        unseen = "one model, or one row of each, cannot tell how models differ"
    else:
        factor = np.exp(Z_90 * np.hypot(spread, noise))
        unseen = (
            f"spread of models {spread:.0%}; a model that is not here: 1, within a factor of"
            f" {factor:.2f} in 90 %"
        )
    rows = [
        (name, number(count[name], whole), f"{np.exp(f):.3f}")
        for name, f in fit.fitted.factors.items()
    ]
    everyone = ("every model", number(len(fit.rows), whole), "1 (none differs)")
    return table(
        f"{fit.gpu.name}: seconds of a model over those of the rates alone",
        ["model", numbers("rows"), numbers("factor")],
        rows or [everyone],
        note=f"noise {noise:.1%}; {unseen}",
    )
