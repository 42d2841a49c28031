"""Fit a few rates to somebody else's table of whole videos, and say how well they predict what they
have not seen.

The cost is bench.calibrate.published.model's, the fit bench.calibrate.published.fit's: as many free
parameters as make the table most probable, and a factor for each model.  Held-out errors repeat the
whole choice without the row, or the model.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from bench.calibrate.fitting.accuracy import (
    INTERVAL,
    Errors,
    TooFewPoints,
    constant_rate,
    errors_of,
    leave_groups_out,
)
from bench.calibrate.published.counts import CountCache, Counted, count_rows
from bench.calibrate.published.fit import Fitted, draws, predict, select
from bench.calibrate.published.model import ATTENTION, LINEAR, STAGES, VAE, PublishedModel
from bench.calibrate.published.table import PublishedTable, Row, Skipped
from bench.core.errors import UserError, nearest
from bench.core.load import load
from bench.core.specs.gpu import Gpu

MIN_ROWS = 4
MOST_UTILISATION = 1.05  # of the datasheet's 16-bit rate, which a card's clock may pass by a little


class RowErrors(Errors):
    """Over rows that took no part in the fit."""

    worst_row: str


def errors(predicted: np.ndarray, measured: np.ndarray, ids: Sequence[str]) -> RowErrors | None:
    """None where nothing was held out (all predicted are nan)."""
    log_errors = np.log(measured / predicted)
    kept = np.isfinite(log_errors)
    found = errors_of(log_errors[kept])
    if found is None:
        return None
    distance = np.where(kept, np.abs(predicted / measured - 1), -1.0)
    return RowErrors(**found.model_dump(), worst_row=ids[int(distance.argmax())])


def held_out(
    model: PublishedModel,
    x: np.ndarray,
    t: np.ndarray,
    models: Sequence[str],
    groups: Sequence[Hashable],
) -> np.ndarray:
    """Each group's rows predicted by a fit without them, the choice of free parameters and the
    models' factors made again; nan where the rest has too few rows."""
    names = np.array(models)

    def predict_rows(kept: np.ndarray, out: np.ndarray) -> np.ndarray:
        if kept.sum() < MIN_ROWS - 1:
            raise TooFewPoints(f"{kept.sum()} rows")
        return _from(model, x, t, names, kept, out)

    return leave_groups_out(groups, predict_rows)


def _from(
    model: PublishedModel,
    x: np.ndarray,
    t: np.ndarray,
    names: np.ndarray,
    rest: np.ndarray,
    wanted: np.ndarray,
) -> np.ndarray:
    """The wanted rows, predicted from the rest."""
    fitted = select(model, x[rest], t[rest], names[rest])
    return predict(model, fitted, x[wanted], names[wanted])


@dataclass(frozen=True, kw_only=True)
class PublishedFit:
    """All there is to say about one kind of card."""

    gpu: Gpu
    rows: tuple[Row, ...]
    measured: np.ndarray
    predicted: np.ndarray
    left_out: np.ndarray
    """Each row by a fit without it."""
    flops: np.ndarray
    model: PublishedModel
    fitted: Fitted
    draws: np.ndarray
    leave_one_out: RowErrors | None
    leave_one_size_out: RowErrors | None
    """All rows of the same model, size and frames left out at once; None where no two rows share
    them."""
    leave_one_model_out: RowErrors | None
    upward: RowErrors | None
    """The larger half by FLOPs, from the smaller."""
    constant_mfu: RowErrors | None
    constant_mfu_by_size: RowErrors | None
    constant_mfu_by_model: RowErrors | None
    constant_mfu_upward: RowErrors | None
    constant_mfu_value: float
    """The geometric mean over all rows."""

    def tied(self, i: int) -> bool:
        """Is it held to the linear rate: one rate for both?"""
        return bool(np.isnan(self.fitted.theta[i]))

    def interval(self, i: int) -> tuple[float, float, float]:
        """(value, low, high) of a parameter; the value lies within."""
        if self.tied(i):
            return self.interval(0)
        value = float(self.fitted.theta[i])
        low, high = np.percentile(self.draws[:, i], INTERVAL)
        return value, float(min(low, value)), float(max(high, value))


def fit_published(
    gpu: Gpu, rows: Sequence[Row], counted: Sequence[Counted], progress: Callable[[str], None]
) -> PublishedFit:
    """Fit, and say how well it predicts what it has not seen.  At least MIN_ROWS rows."""
    assert len(rows) >= MIN_ROWS
    model = PublishedModel(gpu)
    x = np.stack([model.features(row, work) for row, work in zip(rows, counted, strict=True)])
    t, ids = np.array([row.latency_s for row in rows]), [row.id for row in rows]
    progress(f"fitting {len(rows)} rows of {gpu.name}")
    if not x[:, STAGES].any():
        x[:, STAGES] = [
            row.scope.per == "video" for row in rows
        ]  # a loop has its own constant, if none has more
    models = [row.model for row in rows]
    fitted = select(model, x, t, models)
    left_out = held_out(model, x, t, models, range(len(rows)))
    nothing = np.full(len(t), np.nan)
    by_model = held_out(model, x, t, models, models) if len(set(models)) > 1 else nothing
    sizes = [(row.model, row.width, row.height, row.frames) for row in rows]
    by_size = held_out(model, x, t, models, sizes) if 1 < len(set(sizes)) < len(rows) else nothing
    at_peak = x[:, [LINEAR, ATTENTION, VAE]].sum(axis=1)
    upward, small = np.full(len(t), np.nan), at_peak <= np.median(at_peak)
    if small.sum() >= MIN_ROWS - 1 and not small.all():
        upward[~small] = _from(model, x, t, np.array(models), small, ~small)
        constant_upward = np.where(small, np.nan, constant_rate(at_peak, t, small))
    else:
        constant_upward = nothing
    return PublishedFit(
        gpu=gpu,
        rows=tuple(rows),
        measured=t,
        predicted=predict(model, fitted, x, models),
        left_out=left_out,
        flops=at_peak * model.peak,
        model=model,
        fitted=fitted,
        draws=draws(model, x, t, models, fitted),
        leave_one_out=errors(left_out, t, ids),
        leave_one_size_out=errors(by_size, t, ids),
        leave_one_model_out=errors(by_model, t, ids),
        upward=errors(upward, t, ids),
        constant_mfu=errors(constant_rate(at_peak, t), t, ids),
        constant_mfu_by_size=errors(
            constant_rate(at_peak, t, sizes) if np.isfinite(by_size).any() else nothing, t, ids
        ),
        constant_mfu_by_model=errors(constant_rate(at_peak, t, models), t, ids),
        constant_mfu_upward=errors(constant_upward, t, ids),
        constant_mfu_value=float(np.exp(np.log(at_peak / t).mean())),
    )


def split_impossible(
    gpu: Gpu, rows: Sequence[Row], counted: Sequence[Counted]
) -> tuple[list[Row], list[Counted], list[Skipped]]:
    """Rows faster than the card's 16-bit datasheet rate are described wrongly: another size,
    skipped steps, fewer bits."""
    model, possible, skipped = PublishedModel(gpu), [], []
    for row, work in zip(rows, counted, strict=True):
        used = model.features(row, work)[[LINEAR, ATTENTION, VAE]].sum() / row.latency_s
        if used <= MOST_UTILISATION:
            possible.append((row, work))
        else:
            skipped.append(
                Skipped(
                    row.id,
                    row.named,
                    gpu.name,
                    f"needs {used:.2f} of {gpu.name}'s 16-bit peak: fewer bits, "
                    "skipped steps or another size than it says",
                )
            )
    return [row for row, _ in possible], [work for _, work in possible], skipped


def fit_table(
    table: PublishedTable, kind: str | None, progress: Callable[[str], None]
) -> tuple[list[PublishedFit], dict[str, str]]:
    """Every kind of card with enough rows, most rows first, or `kind` alone; and why the others
    were not fitted.

    Raises UserError where none has enough, or where `kind` is in the table under no name."""
    rows: dict[str, list[Row]] = {}
    for row in table.rows:
        if row.fp8:
            reason = "dtype fp8: the rates fitted for one card are of 16 bits"
            table.skipped.append(Skipped(row.id, row.named, row.gpu, reason))
        else:
            rows.setdefault(row.gpu, []).append(row)
    if kind is not None:
        found = (
            kind.lower()
            if kind.lower() in rows
            else next(
                (
                    config.split(" ")[0]
                    for name, config in table.gpus.items()
                    if name.lower() == kind.lower()
                ),
                None,
            )
        )
        if found not in rows:
            raise UserError(
                f"--gpu {kind}: the table has usable rows of"
                f" {', '.join(sorted(rows))}{nearest(kind, rows)}"
            )
        rows = {found: rows[found]}
    fits, unfitted, cache = [], {}, CountCache()
    for name, of_kind in sorted(rows.items(), key=lambda item: -len(item[1])):
        gpu = load(Gpu, name)
        if len(of_kind) < MIN_ROWS:
            unfitted[name] = f"{len(of_kind)} usable rows; at least {MIN_ROWS} are needed"
        elif "bf16" not in gpu.peak_flops_per_s:
            unfitted[name] = "no bf16 rate in its datasheet"
        else:
            of_kind, counted, impossible = split_impossible(
                gpu, of_kind, count_rows(of_kind, cache, progress)
            )
            table.skipped.extend(impossible)
            if len(of_kind) >= MIN_ROWS:
                fits.append(fit_published(gpu, of_kind, counted, progress))
            else:
                unfitted[name] = f"{len(of_kind)} possible rows; at least {MIN_ROWS} are needed"
    if not fits:
        skipped = f"; {len(table.skipped)} more rows cannot be used" if table.skipped else ""
        raise UserError(
            "no GPU kind can be fitted:"
            f" {'; '.join(f'{n}: {why}' for n, why in unfitted.items())}{skipped}"
        )
    return fits, unfitted
