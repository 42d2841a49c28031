"""A prediction from what others published: predict without a calibration."""

import shlex
import sys
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import typer

from bench.calibrate.evidence.forecast import Forecast
from bench.calibrate.predict import Estimate
from bench.commands.parts.output import print_json, say, show
from bench.core.errors import UserError, brief, nearest
from bench.core.presets import names
from bench.core.specs.gpu import Price
from bench.results.video import usd_per_minute

P = TypeVar("P", Forecast, Estimate)
MOST_USD = 1e6


@dataclass(frozen=True)
class Shown:
    """How a forecast is shown."""

    prices: dict[str | None, float]
    as_paragraph: bool
    as_json: bool


def prices_of(given: list[str]) -> dict[str | None, float]:
    """["3.2"] or ["h200=3.2", ...] -> USD an hour by card; None: of every card.  Raises
    UserError."""
    found: dict[str | None, float] = {}
    for text in given:
        card, equals, amount = text.rpartition("=")
        try:
            usd = float(amount)
        except ValueError:
            usd = -1.0
        if not 0 < usd < MOST_USD:
            raise UserError(
                f"--price {brief(text)}: expected USD an hour, e.g. 3.20 or h200=3.20, up to"
                f" {MOST_USD:,.0f}"
            )
        if equals and card not in names("gpus"):
            raise UserError(f"--price {brief(text)}: no such card{nearest(card, names('gpus'))}")
        found[card or None] = usd
    return found


def at_price(predicted: P, card: str, prices: dict[str | None, float]) -> P:
    """A prediction on a card with its dollars at the user's own price, where there is one."""
    usd = prices.get(card, prices.get(None))
    if usd is None:
        return predicted
    yours = Price(low=usd, high=usd, date="yours", source="--price")
    changed = {"usd_per_minute": usd_per_minute(predicted.minutes_per_gpu_hour, yours)}
    if isinstance(predicted, Forecast):
        changed["gpu"] = predicted.gpu.model_copy(update={"price_usd_per_hour": yours})
    return replace(predicted, **changed)


def forecast_points(
    model: str,
    workload: str,
    recipes: list[str],
    gpus: list[str],
    overrides: dict[str, Any],
    shown: Shown,
) -> None:
    """One line a card and recipe, or all about one.  recipes: empty for how published rows of the
    model were run."""
    from bench.calibrate.evidence.forecast import forecast, usual_conditions
    from bench.core.load import load_point
    from bench.count.cache import CountCache
    from bench.report.forecasts import forecast_document, paragraph
    from bench.report.progress import Spinner
    from bench.report.tables.forecasts import answer_table, by_price

    cache, rows = CountCache(), []
    for recipe in recipes or ["eager-bf16"]:
        point = load_point(model, workload, recipe, overrides)
        if point.model.autoregressive:
            raise UserError(
                f"model {point.model.name} is auto-regressive: every published row is of diffusion;"
                " a suite measures it, and `ldt-bench analytic --calibration RESULT` has its time"
                " beside diffusion's"
            )
        run = None if recipes else usual_conditions(point.model.name)
        with Spinner(f"counting {point.label}"):
            found = [forecast(point, gpu, run, cache) for gpu in gpus]
        rows += [at_price(f, f.gpu.name, shown.prices) for f in found]
    ordered = by_price(rows)
    if shown.as_paragraph:
        return typer.echo(paragraph(ordered, shlex.join(["ldt-bench", *sys.argv[1:]])))
    if len(rows) == 1:
        return _show_one(rows[0], bool(recipes), cache, shown.as_json)
    if shown.as_json:
        return print_json({"rows": [forecast_document(f) for f in ordered]})
    usual = "" if recipes else f", {rows[0].conditions.words()}"
    show(
        answer_table(f"{rows[0].point.model.name} · {rows[0].point.workload.name}{usual}", ordered)
    )
    for warning in dict.fromkeys(f"{f.gpu.name}: {w}" for f in ordered for w in f.warnings):
        say(f"warning: {warning}")


def _show_one(f: Any, named: bool, cache: Any, as_json: bool) -> None:
    """Everything about one point on one card."""
    from bench.calibrate.evidence.conditions import Conditions
    from bench.calibrate.evidence.forecast import forecast
    from bench.report.forecasts import forecast_document, headline, published_here, resting_on
    from bench.report.tables.forecasts import forecast_table, otherwise_table

    if as_json:
        return print_json(forecast_document(f))
    how = f.conditions.words()
    said = how if named else f"as published rows run it: {how}"
    typer.echo(f"{f.point.model.name} · {f.point.workload.name} on {f.gpu.name} ({said})")
    typer.echo(headline(f))
    typer.echo(resting_on(f))
    for row in f.same_point:
        typer.echo(published_here(row))
    ways = [
        Conditions(fast_attention=fast, compiled=compiled, fp8=f.conditions.fp8)
        for fast in (False, True)
        for compiled in (False, True)
    ]
    others = [forecast(f.point, f.gpu.name, run, cache) for run in ways if run != f.conditions]
    show(forecast_table("In parts", f), otherwise_table(others))
    for warning in f.warnings:
        say(f"warning: {warning}")
