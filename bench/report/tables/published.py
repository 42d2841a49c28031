"""What a fit to somebody else's table has to say: tables for people, the document of `calibrate
--from --json`."""

from collections import Counter
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.table import Table

from bench.core.units import si
from bench.report.tables.common import table
from bench.studies.published.fit import at_bound
from bench.studies.published.held_out import Errors, PublishedFit
from bench.studies.published.names import Scope
from bench.studies.published.table import PublishedTable

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
    """What a parameter that is not free is held at, and why."""
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


def _errors(e: Errors | None) -> dict[str, Any] | None:
    return asdict(e) if e else None


def readings_tables(read: PublishedTable, unfitted: dict[str, str]) -> list[Table]:
    """What each name was taken for, and what was left out and why."""
    names = [
        *(("model", theirs, ours) for theirs, ours in read.models.items()),
        *(("gpu", theirs, ours) for theirs, ours in read.gpus.items()),
    ]
    out = [
        table(
            "names of the table, and what they were taken for",
            "kind",
            "in the table",
            "taken for",
            rows=names,
        )
    ]
    if read.notes:
        out.append(table("readings", "note", rows=[(n,) for n in read.notes]))
    if read.skipped:
        reasons: dict[str, list[str]] = {}
        for s in read.skipped:
            reasons.setdefault(s.reason, []).append(s.id)
        ordered = Counter({reason: len(ids) for reason, ids in reasons.items()}).most_common()
        out.append(
            table(
                f"{len(read.skipped)} rows that cannot be used",
                "reason",
                "#rows",
                "which",
                rows=[(reason, str(n), ", ".join(reasons[reason])) for reason, n in ordered],
            )
        )
    if unfitted:
        out.append(
            table("kinds of card that were not fitted", "gpu", "reason", rows=unfitted.items())
        )
    return out


def published_tables(fit: PublishedFit) -> list[Table]:
    """Parameters, errors, rows."""
    rows = []
    for i, p in enumerate(fit.model.parameters):
        value, low, high = fit.interval(i)
        free = i in fit.fitted.free
        bound = " at its bound" if at_bound(fit.model, fit.fitted, i) else ""
        rate = f" = {si(value * fit.model.peak, 'FLOP/s')}" if p.name in RATES else ""
        rows.append(
            (
                p.name,
                f"{value:.3g} ({low:.3g} to {high:.3g})" if free else f"{value:.3g}",
                p.unit + rate,
                (
                    f"fitted{bound}"
                    if free
                    else (
                        "fixed: the same as linear_efficiency"
                        if fit.tied(i)
                        else f"fixed: {_fixed(fit, i)['why']}"
                    )
                ),
            )
        )
    parameters = table(
        f"{fit.gpu.name}: {len(fit.fitted.free)} parameters fitted to {len(fit.rows)} rows (free:"
        " those under which the table is most probable)",
        "parameter",
        "#value (90 %)",
        "unit",
        "how",
        rows=rows,
    )

    def line(name: str, e: Errors | None, baseline: Errors | None) -> tuple[str, ...]:
        if e is None:
            return name, "–", "–", "–", "–", "–", "too few rows, or one group"
        return (
            name,
            f"{e.mean:.1%}",
            f"{e.median:.1%}",
            f"{e.worst:.1%}",
            str(e.n),
            f"{baseline.mean:.1%}" if baseline else "–",
            e.worst_row,
        )

    held_out = table(
        f"{fit.gpu.name}: error on rows that took no part in the fit, its choice of parameters"
        " included; beside it that of one utilisation for all FLOPs"
        f" ({fit.constant_mfu_value:.3f}), held out alike",
        "held out",
        "#mean",
        "#median",
        "#worst",
        "#rows",
        "#one utilisation, mean",
        "worst row",
        rows=[
            line("each row", fit.leave_one_out, fit.constant_mfu),
            line("each model's size and frames", fit.leave_one_size_out, fit.constant_mfu_by_size),
            line("each model", fit.leave_one_model_out, fit.constant_mfu_by_model),
            line("the larger half by FLOPs", fit.upward, fit.constant_mfu_upward),
        ],
    )
    each = table(
        f"{fit.gpu.name}: rows (measured by others; fitted, and by a fit without the row)",
        "row",
        "model",
        "size x frames",
        "#forwards",
        "holds",
        "#measured s",
        "#fitted s",
        "#ratio",
        "#left out s",
        rows=[
            (
                r.id,
                r.model,
                f"{r.width}x{r.height}x{r.frames}",
                f"{r.forwards:g}",
                "all stages" if r.scope == ALL_STAGES else str(r.scope),
                f"{t:.5g}",
                f"{p:.5g}",
                f"{p / t:.3f}",
                f"{out:.5g}" if out == out else "–",
            )
            for r, t, p, out in zip(
                fit.rows, fit.measured, fit.predicted, fit.left_out, strict=True
            )
        ],
    )
    return [parameters, _scatter_table(fit), held_out, each]


def _scatter_table(fit: PublishedFit) -> Table:
    """What the rows differ by beside the physics: the factor of each model, and noise."""
    count = Counter(row.model for row in fit.rows)
    alone = len(count) == 1 or len(count) == len(fit.rows)
    unseen = (
        "how models differ cannot be told from one of them, or from one row of each"
        if alone
        else (
            f"spread of models {fit.fitted.tau:.0%}; a model that is not here: 1, within a factor"
            f" of {np.exp(Z_90 * np.hypot(fit.fitted.tau, fit.fitted.noise)):.2f} in 90 %"
        )
    )
    rows = [(name, str(count[name]), f"{np.exp(f):.3f}") for name, f in fit.fitted.factors.items()]
    return table(
        f"{fit.gpu.name}: seconds of a model over those of the rates alone (noise"
        f" {fit.fitted.noise:.1%}; {unseen})",
        "model",
        "#rows",
        "#factor",
        rows=rows or [("every model", str(len(fit.rows)), "1 (none differs)")],
    )
