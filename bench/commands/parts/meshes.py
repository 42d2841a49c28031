"""A prediction on several GPUs: predict --gpus and --parallel."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from bench.commands.parts.options import mesh_of
from bench.commands.parts.output import print_json, say, show
from bench.core.errors import UserError, nearest

if TYPE_CHECKING:
    from bench.calibrate.scaling.choose import Objective
    from bench.calibrate.scaling.forecast import Base, MeshForecast
    from models.parallel.spec import Parallel

AUTO = "auto"
MAX_GPUS = 4096


@dataclass(frozen=True)
class Several:
    """What is asked of several GPUs."""

    counts: tuple[int, ...]
    mesh: "Parallel | None"
    """None: every legal one."""
    objective: "Objective"


def asked_of_several(gpus: str | None, parallel: str | None, objective: str | None) -> Several:
    """The options' values.  Raises UserError for what is no number, mesh or objective."""
    from bench.calibrate.scaling.choose import OBJECTIVES

    wanted = objective or "latency"
    if wanted not in OBJECTIVES:
        raise UserError(
            f"--objective {wanted!r} is not one of"
            f" {', '.join(OBJECTIVES)}{nearest(wanted, OBJECTIVES)}"
        )
    counts = tuple(_count(part.strip()) for part in gpus.split(",")) if gpus is not None else ()
    mesh = _mesh(parallel)
    if mesh is None and not counts:
        raise UserError("--parallel auto and --objective go with --gpus, a number of GPUs")
    if mesh is not None and counts not in ((), (mesh.ranks,)):
        raise UserError(
            f"--parallel {parallel} is {mesh.ranks} GPUs, --gpus says {gpus}; leave --gpus out, or"
            " say data=N for N videos at once"
        )
    return Several(counts or (mesh.ranks if mesh else 1,), mesh, wanted)


def _count(text: str) -> int:
    digits = text.isascii() and text.isdigit() and len(text) < 10
    if not (digits and 0 < int(text) <= MAX_GPUS):
        raise UserError(
            f"--gpus {text!r}: expected a whole number from 1 to {MAX_GPUS}, e.g. 8 or 1,2,4"
        )
    return int(text)


def _mesh(text: str | None) -> "Parallel | None":
    from models.parallel.spec import Parallel

    return None if text in (None, AUTO) else Parallel(**mesh_of(text or ""))


def forecast_on_several(
    model: str,
    workload: str,
    recipes: list[str],
    gpus: list[str],
    overrides: dict[str, Any],
    several: Several,
    calibration: Path | None,
    as_json: bool,
) -> None:
    """Everything about one kind and number of cards, or one line of each."""
    from bench.report.progress import Spinner

    if len(recipes) > 1:
        raise UserError(f"--gpus predicts one recipe at a time, found {', '.join(recipes)}")
    with Spinner("counting"):
        if calibration is not None:
            bases = [_calibrated(model, workload, recipes, gpus, overrides, calibration)]
        else:
            bases = _published(model, workload, recipes, gpus, overrides)
    pairs = _possible(bases, several)
    if len(pairs) == 1:
        return _show_one(*pairs[0], several, as_json)
    _show_many(pairs, several, as_json)


def _published(
    model: str, workload: str, recipes: list[str], gpus: list[str], overrides: dict[str, Any]
) -> "list[Base]":
    """The point on one card of each kind, by what others published."""
    from bench.calibrate.evidence.forecast import forecast, usual_conditions
    from bench.calibrate.scaling.forecast import base_of_forecast
    from bench.core.load import load_point
    from bench.count.cache import CountCache

    counts = CountCache()
    point = load_point(model, workload, next(iter(recipes), "eager-bf16"), overrides)
    if point.model.autoregressive:
        raise UserError(f"model {point.model.name} is auto-regressive: no mesh is known for it")
    run = None if recipes else usual_conditions(point.model.name)
    return [base_of_forecast(forecast(point, gpu, run, counts), counts) for gpu in gpus]


def _calibrated(
    model: str,
    workload: str,
    recipes: list[str],
    gpus: list[str],
    overrides: dict[str, Any],
    calibration: Path,
) -> "Base":
    """The point on one card, by its own records."""
    from bench.calibrate.estimate import estimate
    from bench.calibrate.make import load_or_calibrate
    from bench.calibrate.scaling.forecast import base_of_estimate
    from bench.calibrate.scaling.own import own_ranks
    from bench.core.load import load, load_point, names
    from bench.core.specs.gpu import Gpu
    from bench.count.cache import CountCache
    from bench.results.store import read_records

    calibrated = load_or_calibrate(calibration)
    recipe = next(iter(recipes), calibrated.default_recipe)
    point = load_point(model, workload, recipe, overrides)
    predicted = estimate(point, calibrated, gpu=next(iter(gpus), None), ceilings=None)
    if predicted.gpu not in names("gpus"):
        raise UserError(
            f"{calibration} was measured on {predicted.gpu}, whose link to others is not known;"
            " give --gpu, a card of configs/gpus"
        )
    own = None
    if predicted.gpu == calibrated.gpu and calibration.is_dir():
        own = own_ranks(calibrated.fit_for(point.recipe, point.model), read_records(calibration))
    return base_of_estimate(point, predicted, load(Gpu, predicted.gpu), CountCache(), own)


def _possible(bases: "Sequence[Base]", several: Several) -> "list[tuple[Base, int]]":
    """Each kind with each number of cards; of several kinds, those that have so many are left.
    Raises UserError where none has."""
    from bench.calibrate.scaling.choose import check_cards

    pairs, left_out = [], []
    for base in bases:
        for cards in several.counts:
            try:
                check_cards(base, cards)
            except UserError as error:
                left_out.append(error)
                continue
            pairs.append((base, cards))
    if not pairs or (left_out and len(bases) == 1):
        raise left_out[0]
    for error in left_out:
        say(f"note: left out: {error}")
    return pairs


def _found(base: "Base", cards: int, several: Several) -> "list[MeshForecast]":
    """The best first."""
    from bench.calibrate.scaling.choose import all_meshes, ranked
    from bench.calibrate.scaling.forecast import forecast_on

    if several.mesh is not None:
        return [forecast_on(base, several.mesh)]
    return ranked(all_meshes(base, cards), several.objective)


def _show_one(base: "Base", cards: int, several: Several, as_json: bool) -> None:
    from bench.calibrate.scaling.choose import why_first
    from bench.calibrate.scaling.evidence import scaling_evidence
    from bench.report.meshes import (
        mesh_headline,
        ranking_document,
        resting_on_ranks,
        resting_on_rows,
    )
    from bench.report.tables.forecasts import mesh_table

    found, fitted = _found(base, cards, several), scaling_evidence()
    why = why_first(found, several.objective) if several.mesh is None else "the mesh asked for"
    if as_json:
        return print_json(ranking_document(base, found, why, fitted))
    best, point = found[0], base.point
    typer.echo(f"{point.model.name} · {point.workload.name} on {cards} x {base.gpu.name}")
    typer.echo(mesh_headline(best))
    if several.mesh is None:
        typer.echo(why)
    for line in _beside(base, best):
        typer.echo(line)
    if best.parallel.of_one_sample > 1:
        rests = resting_on_rows(fitted, best.parallel.of_one_sample)
        typer.echo(rests if base.own is None else resting_on_ranks(base.own))
    show(mesh_table(f"{cards} x {base.gpu.name}, by {several.objective}", found))
    if best.provenance == "extrapolated" and base.own is None:
        say("warning: extrapolated: no published row is on such links, with such axes or cards")
    _warn([base])


def _beside(base: "Base", best: "MeshForecast") -> list[str]:
    """Single cards, the decode shared too, and published rows of this very point."""
    from bench.calibrate.scaling.choose import rows_of_point, single_cards, with_spread_decode
    from bench.report.meshes import beside_single, mesh_headline, published_mesh

    cards = best.parallel.ranks
    lines = []
    if best.parallel.of_one_sample > 1:
        lines.append(beside_single(best, single_cards(base, cards)))
    if best.parallel.of_one_sample > 1 and best.parallel.vae == 1:
        shared = with_spread_decode(base, best)
        lines.append(f"with the decode on all cards too, {mesh_headline(shared)}")
    return lines + [published_mesh(row) for row in rows_of_point(base, cards)]


def _show_many(pairs: "Sequence[tuple[Base, int]]", several: Several, as_json: bool) -> None:
    from bench.calibrate.scaling.evidence import scaling_evidence
    from bench.report.meshes import base_document, evidence_document, mesh_document
    from bench.report.tables.forecasts import scale_table

    rows = [(base, _found(base, cards, several)[0]) for base, cards in pairs]
    if as_json:
        documents = [base_document(base) | {"best": mesh_document(best)} for base, best in rows]
        return print_json({"rows": documents, "evidence": evidence_document(scaling_evidence())})
    point = pairs[0][0].point
    title = f"{point.model.name} · {point.workload.name}, the best mesh by {several.objective}"
    show(scale_table(title, rows))
    _warn([base for base, _ in pairs])


def _warn(bases: "Sequence[Base]") -> None:
    for warning in dict.fromkeys(f"{b.gpu.name}: {w}" for b in bases for w in b.warnings):
        say(f"warning: {warning}")
