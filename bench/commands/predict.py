"""What would it take?  predict."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.commands.parts.meshes import asked_of_several, forecast_on_several
from bench.commands.parts.options import (
    Json,
    Mesh,
    ModelName,
    Set,
    WorkloadName,
    completes,
    go_with,
    recipe_option,
)
from bench.commands.parts.output import print_json, say, show
from bench.core.errors import UserError

if TYPE_CHECKING:
    from bench.commands.parts.forecast import Shown

EVERY = "all"


Calibration = Annotated[
    Path | None,
    typer.Option(
        help="A result directory: its fit predicts. Without one: the newest result of --gpu under"
        " results/, else what others published.",
        show_default=False,
    ),
]
Recipes = Annotated[
    str | None,
    recipe_option(
        "A recipe, or several with commas. By default a calibration's headline (on a GPU one of"
        " half precision), or how published rows of the model were run."
    ),
]
Cards = Annotated[
    str | None,
    typer.Option(
        help="A card, several with commas, or all. With --calibration: carry it to this card"
        " (extrapolated).",
        autocompletion=completes("gpus"),
    ),
]
Steps = Annotated[
    int | None, typer.Option(min=1, max=1_000_000, help="In the place of the workload's.")
]
Gpus = Annotated[
    str | None,
    typer.Option(
        metavar="N[,N...]",
        help="GPUs that work together: the best mesh of them, beside as many single ones.",
        show_default=False,
    ),
]
Wanted = Annotated[
    str | None,
    typer.Option(
        help="What the best mesh has least of: latency (default), cost or energy.",
        autocompletion=lambda: ["latency", "cost", "energy"],
        show_default=False,
    ),
]
MeasuredCeilings = Annotated[
    Path | None,
    typer.Option(help="A result of that card, for its measured ceilings; else its datasheet."),
]
Prices = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[CARD=]USD",
        help="What you pay an hour: of the cards asked about, or of one; repeatable. By default the"
        " range in configs/gpus.",
        show_default=False,
    ),
]
Paragraph = Annotated[
    bool, typer.Option("--paragraph", help="Three sentences with sources, for a report.")
]


def predict(
    model: ModelName,
    workload: WorkloadName,
    calibration: Calibration = None,
    recipe: Recipes = None,
    gpu: Cards = None,
    steps: Steps = None,
    ceilings: MeasuredCeilings = None,
    gpus: Gpus = None,
    parallel: Mesh = None,
    objective: Wanted = None,
    as_paragraph: Paragraph = False,
    price: Prices = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Predict seconds, minutes of video per GPU-hour, dollars and kWh of any model at any
    workload, from a card's own records or from what others published of it.

    `--gpu all`, or several cards and recipes, make one table, the cheapest minute first."""
    from bench.commands.parts.forecast import Shown, forecast_points, prices_of
    from bench.core.load import parse_overrides

    changes = parse_overrides(overrides or [])
    if steps is not None:
        changes["workload.steps"] = steps
    cards, recipes = _listed(gpu, "--gpu"), _listed(recipe, "--recipe")
    if gpus is not None or parallel is not None or objective is not None:
        alone = {"--paragraph": as_paragraph, "--ceilings": ceilings, "--price": price}
        go_with("one GPU", False, alone)
        several = asked_of_several(gpus, parallel, objective)
        known = cards if calibration is not None else _known_cards(cards)
        return forecast_on_several(
            model, workload, recipes, known, changes, several, calibration, as_json
        )
    shown = Shown(prices_of(price or []), as_paragraph, as_json)
    one_point = len(cards) == 1 and EVERY not in cards and len(recipes) <= 1 and not as_paragraph
    if calibration is None and one_point and ceilings is None:
        own = _own_result(cards[0])
        if own is not None and _answered_by(own, model, workload, recipes, changes, shown):
            return None
    if calibration is None:
        go_with("--calibration", False, {"--ceilings": ceilings})
        return forecast_points(model, workload, recipes, _known_cards(cards), changes, shown)
    if len(cards) > 1 or len(recipes) > 1 or as_paragraph:
        raise UserError(
            "--calibration predicts one recipe on one card; leave it out for a table from what"
            " others published"
        )
    card, named = next(iter(cards), None), next(iter(recipes), None)
    _from_records(model, workload, calibration, named, card, ceilings, changes, shown)


def _listed(text: str | None, option: str) -> list[str]:
    """'a,b' -> two names.  Raises UserError for an empty one."""
    names = [name.strip() for name in (text or "").split(",")]
    if text is None:
        return []
    if not all(names):
        raise UserError(
            f"{option} {text!r}: expected names with commas between, found an empty one"
        )
    return list(dict.fromkeys(names))


def _own_result(gpu: str) -> Path | None:
    """The newest calibrated result of a card under results/."""
    from bench.results.store import CALIBRATION

    found = sorted(Path("results", gpu).glob(f"*/{CALIBRATION}"), key=lambda f: f.parent.name)
    return found[-1].parent if found else None


def _answered_by(
    own: Path,
    model: str,
    workload: str,
    recipes: list[str],
    changes: dict[str, Any],
    shown: "Shown",
) -> bool:
    """Predict by a card's own result.  False, with a note that says why, where that result says
    nothing of the point, and something is published of the card."""
    from bench.calibrate.evidence.card import read_card
    from bench.core.load import load_point

    recipe = next(iter(recipes), None)
    load_point(model, workload, recipe or "eager-bf16", changes)  # a wrong name is said once
    try:
        _from_records(model, workload, own, recipe, None, None, changes, shown)
    except UserError as error:
        try:
            read_card(own.parent.name)
        except UserError:
            raise error from None
        say(f"note: {own} is not used: {error}")
        return False
    return True


def _known_cards(cards: list[str]) -> list[str]:
    """Raises UserError without any."""
    from bench.calibrate.evidence.card import card_names

    if not cards:
        raise UserError(
            "predict needs --gpu, a card of configs/gpus (or all), or --calibration, a result"
            f" directory; cards with published evidence: {', '.join(card_names())}"
        )
    return card_names() if EVERY in cards else cards


def _from_records(
    model: str,
    workload: str,
    calibration: Path,
    recipe: str | None,
    gpu: str | None,
    ceilings: Path | None,
    changes: dict[str, Any],
    shown: "Shown",
) -> None:
    from bench.calibrate.estimate import estimate
    from bench.calibrate.make import load_or_calibrate
    from bench.commands.parts.beside import said_beside
    from bench.commands.parts.forecast import at_price
    from bench.core.load import load_point
    from bench.report.documents import estimate_document
    from bench.report.progress import Spinner
    from bench.report.tables.calibration import estimate_table

    with Spinner("reading the calibration"):
        calibrated = load_or_calibrate(calibration)
    point = load_point(model, workload, recipe or calibrated.default_recipe, changes)
    if point.model.autoregressive:
        raise UserError(
            f"model {point.model.name} is auto-regressive: a suite measures it, and `ldt-bench"
            f" analytic --calibration {calibration}` has its time beside diffusion's"
        )
    with Spinner(f"counting {point.label}"):
        predicted = estimate(point, calibrated, gpu=gpu, ceilings=ceilings)
    predicted = at_price(predicted, predicted.gpu, shown.prices)
    document, lines = said_beside(point, predicted, calibrated, calibration)
    if shown.as_json:
        return print_json(estimate_document(point, predicted) | document)
    show(estimate_table(f"{point.label} on {predicted.gpu}", predicted))
    for line in lines:
        typer.echo(line)
    for warning in predicted.warnings:
        say(f"warning: {warning}")
