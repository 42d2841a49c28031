"""How many GPUs does a demand take?  fleet."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.commands.parts.options import (
    Json,
    Mesh,
    check_gpu,
    completes,
    duration,
    names_yaml,
    recipe_option,
)
from bench.commands.parts.output import print_json, say, show
from bench.core.errors import UserError

if TYPE_CHECKING:
    from bench.core.specs.demand import Demand
    from bench.studies.fleet.article import Article
    from bench.studies.fleet.plan import Server

DemandName = Annotated[
    str,
    typer.Argument(
        help="A name in configs/demands, or a YAML file.",
        autocompletion=completes("demands"),
    ),
]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="What makes the clips.",
        callback=names_yaml,
        autocompletion=completes("models"),
    ),
]
Cards = Annotated[str, typer.Option("--gpu", help="A card of configs/gpus, or several: a,b.")]
Recipe = Annotated[
    str | None, recipe_option("How it is run; by default as published rows of the model are.")
]
Minutes = Annotated[
    float | None, typer.Option(help="Generated minutes a day, in the place of the demand's.")
]
MOST_MINUTES = 1e12
"""A day, as in a demand's file."""
Starts = Annotated[str | None, typer.Option(help="A clip starts within this time, e.g. 60s.")]
DoneIn = Annotated[str | None, typer.Option(help="A clip is done within this time, e.g. 5m.")]
Calibration = Annotated[
    Path | None, typer.Option(help="Seconds by this result, in the place of published evidence.")
]
Out = Annotated[Path | None, typer.Option(help="Write the figures there.")]


def fleet(
    demand: DemandName = "uploads",
    model: Model = "sora-20b",
    gpu: Cards = "h100-sxm",
    recipe: Recipe = None,
    parallel: Mesh = None,
    calibration: Calibration = None,
    minutes_per_day: Minutes = None,
    starts_within: Starts = None,
    done_within: DoneIn = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """From demand to GPUs: at the peak and on average, dollars and MWh a day, with intervals;
    beside it the published arithmetic (720,000 H100s), what moves the answer most, and ways to run
    the fleet.  --parallel auto compares meshes of 1, 2, 4 and 8 cards a clip."""
    from bench.report.progress import Spinner

    cards = [name.strip() for name in gpu.split(",")]
    for card in cards:
        check_gpu(card)
    asked = _demand(demand, minutes_per_day, starts_within, done_within)
    with Spinner("predicting clips"):
        servers = _servers(asked, model, cards, recipe, parallel, calibration)
    _answer(asked, servers, _batches(asked, model, cards, recipe, calibration), out, as_json)


def _answer(
    asked: "Demand",
    servers: "list[Server]",
    batches: "list[Server]",
    out: Path | None,
    as_json: bool,
) -> None:
    from bench.report.fleet import tables
    from bench.report.progress import Spinner
    from bench.studies.fleet.article import lines
    from bench.studies.fleet.plan import meets, plan
    from bench.studies.fleet.policies import check, compare
    from bench.studies.fleet.tornado import tornado

    plans = [plan(asked, server) for server in servers]
    first = plans[0]
    of_card = [s for s in servers if s.gpu.name == first.server.gpu.name]
    with Spinner("simulating the busiest hour"):
        simulated = check(asked, first.server)
        outcomes = compare(asked, of_card, batches)
    printed, swings = article(), tornado(asked, first.server)
    rows = lines(printed, asked, first.server, first.fleet)
    files = {}
    if out is not None:
        from bench.report.fleet.figures import save_figures

        files = save_figures(out, first, outcomes, swings)
    if as_json:
        document = tables.fleet_document(plans, printed, rows, swings, outcomes, simulated, files)
        return print_json(document)
    how = tables.provenance_of(plans[:1])
    show(
        tables.plans_table(plans),
        tables.article_table(printed, rows, how),
        tables.tornado_table(swings, how),
        tables.policies_table(outcomes, asked.objective.share, how),
    )
    typer.echo(tables.check_line(simulated))
    for planned in (p for p in plans if not meets(p)):
        wanted = asked.objective.done_within_s
        say(
            f"warning: on {planned.server.gpu.name}, {planned.server.how}, a clip alone takes more"
            f" than the {wanted:.0f} s that it may; more servers do not help, a mesh may"
        )
    for name, path in files.items():
        typer.echo(f"{name}: {path}")


def _demand(name: str, minutes: float | None, starts: str | None, done: str | None) -> "Demand":
    from bench.core.load import load
    from bench.core.specs.demand import Demand

    asked = load(Demand, name)
    objective = {}
    if starts is not None:
        objective["starts_within_s"] = duration(starts, "--starts-within")
    if done is not None:
        objective["done_within_s"] = duration(done, "--done-within")
    asked = asked.model_copy(update={"objective": asked.objective.model_copy(update=objective)})
    if minutes is None:
        return asked
    if not 1 <= minutes <= MOST_MINUTES:
        raise UserError(f"--minutes-per-day {minutes:g}: expected 1 to {MOST_MINUTES:g}")
    return _scaled(asked, minutes / asked.minutes_per_day)


def _scaled(asked: "Demand", factor: float) -> "Demand":
    """So many times the minutes, of every platform."""

    def of(platform: Any) -> Any:
        m = platform.minutes_per_day
        ends = {k: getattr(m, k) * factor for k in ("value", "low", "high")}
        return platform.model_copy(update={"minutes_per_day": m.model_copy(update=ends)})

    return asked.model_copy(update={"platforms": tuple(map(of, asked.platforms))})


def _servers(
    asked: "Demand",
    model: str,
    cards: Sequence[str],
    recipe: str | None,
    parallel: str | None,
    calibration: Path | None,
) -> "list[Server]":
    from bench.commands.parts.meshes import AUTO
    from bench.commands.parts.options import mesh_of
    from bench.studies.fleet import servers
    from models.parallel.spec import Parallel

    if calibration is not None:
        if parallel is not None or len(cards) > 1:
            raise UserError("--calibration plans single cards of one kind")
        return [servers.of_calibration(asked, model, recipe, calibration, cards[0])]
    if parallel is None:
        return [servers.single_cards(asked, model, recipe, card) for card in cards]
    if parallel == AUTO:
        return [s for card in cards for s in servers.on_meshes(asked, model, recipe, card)]
    mesh = Parallel(**mesh_of(parallel))
    return [servers.on_mesh(asked, model, recipe, card, mesh) for card in cards]


def _batches(
    asked: "Demand",
    model: str,
    cards: Sequence[str],
    recipe: str | None,
    calibration: Path | None,
) -> "list[Server]":
    """Batches of 2 and 4 clips on a card, where evidence predicts them."""
    from bench.studies.fleet.servers import in_batches

    if calibration is not None:
        return []
    return [in_batches(asked, model, recipe, cards[0], batch) for batch in (2, 4)]


def article() -> "Article":
    from bench.studies.fleet.article import Article
    from bench.studies.pencil.assumptions import Assumptions
    from bench.studies.pencil.demand import Demand, Headroom

    headroom = Headroom()
    return Article(
        minutes_per_day=Demand().minutes_per_day,
        printed_minutes_per_day=Assumptions().demand_printed,
        utilisation=headroom.utilisation,
        peak_over_mean=headroom.peak_over_mean,
        candidates_per_upload=headroom.candidates_per_upload,
    )
