"""A fit: its parameters, its errors, each predicted stage; a prediction, and predictions held
against later measurements."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from bench.calibrate.calibration import Fit, FittedParameter, FittedStage
from bench.calibrate.fitting.accuracy import Errors
from bench.core.units import minutes_an_hour, seconds
from bench.report.numbers import change, percent, whole
from bench.report.tables.table import (
    DASH,
    Cell,
    Column,
    Table,
    counted,
    fitted,
    measured,
    number,
    numbers,
    quantity,
    span,
    table,
)

if TYPE_CHECKING:  # scipy, which the tables of a report need not
    from bench.calibrate.holdout import HeldOut
    from bench.calibrate.predict import Estimate

PRIOR = "too few points determine this parameter, so it stays near its prior"
UNMEASURED = "no measured stage had work of this class"
ERRORS = [fitted("median"), fitted("mean"), fitted("worst"), fitted("n")]


def parameters_table(fit: Fit) -> Table:
    """Every parameter of the cost model."""
    rows = [_parameter_cells(name, p) for name, p in fit.parameters.items()]
    if fit.training is not None:
        q, n = fit.training.factor, len(fit.training.stages)
        steps = f"{n} training step{'s' if n > 1 else ''}, apart from the other parameters"
        rows.append(
            ["train_step", number(q.value), span(q.low, q.high), "times the inference fit", steps]
        )
    return table(
        f"Calibration of {fit.title}",
        ["parameter", fitted("value"), fitted("90 % interval"), "unit", "note"],
        rows,
    )


def carrying_tables(fit: Fit, carried: Mapping[str, float], least: float) -> tuple[Table, Table]:
    """Parameters that scale at least such a share of the headline's seconds, and the others.

    carried: parameter -> its share; where none is known, all are in the first table."""
    every = parameters_table(fit)
    columns = [every.columns[0], fitted("of the seconds"), *every.columns[1:]]
    few, rest = [], []
    for name, row in sorted(
        zip(fit.parameters, every.rows[: len(fit.parameters)], strict=True),
        key=lambda pair: -carried.get(pair[0], 0.0),
    ):
        share = carried.get(name)
        how = "a share of the headline's seconds that it scales"
        cells = [row[0], number(share, percent(0), how), *row[1:]]
        (few if not carried or (share or 0.0) >= least else rest).append(cells)
    extra = [[row[0], number(None), *row[1:]] for row in every.rows[len(fit.parameters) :]]
    note = f"those that scale at least {least:.0%} of the headline's seconds" if carried else ""
    return (
        table(every.title, columns, few, note),
        table(f"The other parameters of {fit.title}", columns, [*rest, *extra]),
    )


def _parameter_cells(name: str, p: FittedParameter) -> list[Cell | str]:
    if p.value is None:
        return [name, Cell("not measured", how=UNMEASURED), "", p.unit, ""]
    note: Cell | str = "at its bound" if p.at_bound else ""
    if not p.at_bound and not p.identified:
        note = Cell("near its prior", how=PRIOR)
    return [name, number(p.value), span(p.low, p.high), p.unit, note]


def errors_table(fit: Fit) -> Table:
    """Errors of predictions, beside the baseline's and the noise floor."""
    return table(
        f"Error of predicted denoise steps that the fit never saw, {fit.title}",
        ["how", *ERRORS],
        [
            ["leave one out", *_error_cells(fit.leave_one_out)],
            ["leave a number of tokens out", *_error_cells(fit.leave_a_size_out)],
            ["larger half from the smaller", *_error_cells(fit.upward)],
            [
                "baseline: one MFU for all, leave one out",
                *_error_cells(fit.constant_mfu_baseline),
            ],
            ["noise floor: the medians' own intervals", *_error_cells(fit.noise_floor)],
        ],
    )


def _error_cells(e: Errors | None) -> list[Cell]:
    if e is None:
        return [*[number(None)] * 3, number(0, whole)]
    return [*(number(share, percent()) for share in (e.median, e.mean, e.worst)), number(e.n, str)]


def predictions_table(fit: Fit) -> Table:
    """Each stage as the fit has it, and as a fit without it predicted it."""
    return table(
        f"Predicted and measured seconds, {fit.title}",
        [
            "point",
            "stage",
            measured("measured"),
            fitted("held out"),
            fitted("error, held out"),
            fitted("in the fit"),
            fitted("error, in the fit"),
        ],
        [_prediction_cells(s) for s in fit.stages],
    )


def _prediction_cells(s: FittedStage) -> list[Cell | str]:
    if s.held_out_s is None:
        held_out, error = Cell(DASH, how="nothing else has that class of work"), number(None)
    else:
        how = "predicted by a fit that never saw this point"
        held_out = number(s.held_out_s, seconds, how)
        error = _error(s.held_out_s, s)
    measured_s, fitted_s = number(s.measured_s, seconds), number(s.fitted_s, seconds)
    return [s.point, s.stage, measured_s, held_out, error, fitted_s, _error(s.fitted_s, s)]


def _error(predicted_s: float, stage: FittedStage, how: str | None = None) -> Cell:
    return number(predicted_s / stage.measured_s - 1, change, how)


def latency_table(fits: Iterable[Fit]) -> Table:
    """A denoising step as measured, by the cost model, and by one rate for all FLOPs."""
    rows = []
    for fit in fits:
        steps = [s for s in fit.stages if s.stage == "denoise_step"]
        for s in steps if fit.constant_mfu_flops_per_s else []:
            flat_s = s.flops / fit.constant_mfu_flops_per_s
            rows.append(
                [
                    s.point,
                    number(s.tokens, whole, "tokens of one sample"),
                    number(s.measured_s, seconds),
                    _error(s.fitted_s, s, seconds(s.fitted_s)),
                    _error(flat_s, s, seconds(flat_s)),
                ]
            )
    return table(
        "One denoising step (all its forwards)",
        [
            "point",
            counted("tokens"),
            measured("measured"),
            fitted("cost model's error"),
            fitted("one MFU's error"),
        ],
        rows,
    )


def estimate_table(title: str, e: "Estimate") -> Table:
    """`predict`."""
    fits = "unknown" if e.fits_memory is None else "yes" if e.fits_memory else "no"
    return table(
        title,
        ["quantity", numbers("value", e.provenance)],
        [
            ["one denoising step", quantity(e.step_s, seconds)],
            *([f"  {stage}, whole video", quantity(q, seconds)] for stage, q in e.stages.items()),
            ["whole video", quantity(e.video_s, seconds)],
            [minutes_an_hour(e.gpu), quantity(e.minutes_per_gpu_hour)],
            ["dollars per minute", quantity(e.usd_per_minute)],
            ["kWh per minute", quantity(e.kwh_per_minute)],
            ["fits memory", fits],
        ],
        note="90 % intervals",
    )


def holdout_table(rows: Iterable["HeldOut"]) -> Table:
    """Each stage as predicted and as measured afterwards."""
    return table(
        "Predicted (90 % interval), then measured",
        [
            "point",
            "stage",
            numbers("predicted"),
            numbers("measured"),
            numbers("error"),
            numbers("one MFU for all"),
            "inside",
        ],
        [
            [
                r.point,
                r.stage,
                quantity(r.predicted_s, seconds),
                number(r.measured_s.value, seconds),
                number(r.error, change),
                number(r.baseline_error, change),
                "yes" if r.inside else "no",
            ]
            for r in rows
        ],
    )


def holdout_errors_table(summary: dict[str, Any]) -> Table:
    """From `holdout`'s document."""

    def cells(name: str) -> list[Cell]:
        return _error_cells(Errors(**summary[name]) if summary[name] else None)

    drift = change(summary["drift"] - 1)
    return table(
        "Error of predictions of points that the fit never saw",
        ["by", *(Column(c.title, number=True) for c in ERRORS)],
        [
            ["the cost model", *cells("error")],
            [
                f"the cost model, the machine's drift ({drift} by the sentinel) left in",
                *cells("raw_error"),
            ],
            ["the cost model, where the baseline has a rate", *cells("error_where_baseline")],
            ["baseline: one MFU for all of a stage", *cells("constant_mfu_baseline")],
        ],
    )
