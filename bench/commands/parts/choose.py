"""Which points are worth measuring for some predictions?  run --choose-for."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.commands.parts.options import completes, duration, go_with, names_yaml, recipe_option
from bench.commands.parts.output import print_json, say, show
from bench.core.errors import EnvironmentFault, UserError

if TYPE_CHECKING:
    from bench.core.specs.point import Point
    from bench.core.specs.suite import Suite, SuitePoints

BUDGET = "8m"


def _names_models(given: list[str] | None) -> list[str] | None:
    names_yaml([text.partition(":")[0] for text in given or ()])
    return given


ChooseFor = Annotated[
    list[str] | None,
    typer.Option(
        metavar="MODEL[:WORKLOAD]",
        help=(
            "Measure nothing: choose the suite's points whose measurement narrows the prediction"
            " of this model at --workload (or its own) most for their time. Repeatable."
        ),
        show_default=False,
        callback=_names_models,
        autocompletion=completes("models"),
    ),
]
Workload = Annotated[
    str | None,
    typer.Option(
        "--workload",
        "-w",
        help="With --choose-for.",
        show_default=False,
        autocompletion=completes("workloads"),
    ),
]
Recipe = Annotated[
    str | None, recipe_option("With --choose-for: by default the one of the suite's headline.")
]
Write = Annotated[
    Path | None,
    typer.Option(help="With --choose-for: write the chosen points as a suite, to be run."),
]


@dataclass(frozen=True)
class Wanted:
    """The points that are to be predicted."""

    models: Sequence[str]
    """MODEL, or MODEL:WORKLOAD."""
    workload: str | None
    """Of those that do not name theirs."""
    recipe: str | None
    """None: the suite's first that a model takes."""
    overrides: list[str]


@dataclass(frozen=True)
class Designed:
    """What was chosen, and from what."""

    document: dict[str, Any]
    suite: "Suite"
    entries: "list[SuitePoints]"
    target: "Point"


def check_chosen(resume: Path | None, price: float | None, weights: list[str] | None) -> None:
    """Raises UserError for what goes with a measurement."""
    of_suite = {"--resume": resume, "--price": price, "--weights": weights}
    go_with("a suite that is measured", False, of_suite)


def choose(
    wanted: Wanted,
    suite: str | None,
    budget: str,
    device: str | None,
    gpu: str | None,
    calibration: Path | None,
    write: Path | None,
    as_json: bool,
) -> None:
    """Choose the points of a suite whose measurement narrows the wanted predictions most for its
    time; nothing is measured here.  suite: calibrate-cpu on a CPU and h100 on a GPU by default;
    calibration: a result to start from, else published shares and priors; write: a YAML to be
    run."""
    from bench.report.tables.planning import design_line, design_table
    from bench.results.store import disk_faults, write_whole
    from bench.run.choose import chosen_suite

    budget_s = duration(budget, "--budget")
    asked = [_split(name, wanted.workload) for name in wanted.models]
    found = _designed(wanted, asked, suite, budget_s, device, gpu, calibration)
    document = found.document
    if write is not None:
        chosen = [found.entries[row["index"]] for row in document["points"]]
        if not chosen:
            raise UserError(
                f"--budget {budget}: no point of {found.suite.name} fits; the cheapest takes "
                f"{document['cheapest_s']:.0f} s"
            )
        with disk_faults(write):
            write_whole(write, chosen_suite(found.suite, chosen, found.target, document))
    if as_json:
        return print_json(document)
    show(design_table(document))
    typer.echo(design_line(document))
    if write is not None:
        typer.echo(f"run it: ldt-bench run {write}")


def _split(name: str, workload: str | None) -> tuple[str, str]:
    """'wan2.1-t2v-14b:720p-81f' -> model and workload.  Raises UserError where there is none."""
    model, _, own = name.partition(":")
    if own or workload is not None:
        return model, own or str(workload)
    raise UserError("--choose-for needs --workload, a name in configs/workloads")


def _designed(
    wanted: Wanted,
    asked: list[tuple[str, str]],
    suite: str | None,
    budget_s: float,
    device: str | None,
    gpu: str | None,
    calibration: Path | None,
) -> Designed:
    from bench.core.load import load, load_point, parse_overrides
    from bench.core.specs.suite import Suite
    from bench.measure.worker.process import Worker
    from bench.report.progress import Spinner
    from bench.run.choose import design, pool, suiting_recipe
    from bench.run.forecast import Forecaster

    overrides = parse_overrides(wanted.overrides)
    with Worker("cpu" if gpu is not None else device) as worker, Spinner("counting") as spinner:
        here = gpu or worker.environment.gpu
        loaded = load(Suite, suite or ("calibrate-cpu" if here == "cpu" else "h100"))
        points = [
            load_point(
                model,
                workload,
                wanted.recipe or suiting_recipe(loaded, model, workload, overrides),
                overrides,
            )
            for model, workload in asked
        ]
        entries = [
            entry
            for i, point in enumerate(points)
            if point.recipe.name not in {p.recipe.name for p in points[:i]}
            for entry in pool(loaded, point.recipe)
        ]
        entries = [entry for i, entry in enumerate(entries) if entry not in entries[:i]]
        document = design(
            points,
            entries,
            Forecaster(loaded, Path("results"), calibration),
            worker,
            budget_s,
            gpu=gpu,
            probe=gpu is None,
            watch=lambda what, done: spinner.say(f"{what}: {done}"),
        )
    if document is None:
        raise EnvironmentFault(
            f"nothing is known of {here}: no datasheet, and its quick probe failed; give"
            " --calibration"
        )
    _say_other_recipe(points, loaded, wanted)
    about = {
        "for": ", ".join(point.label for point in points),
        "gpu": here,
        "suite": loaded.name,
        "budget_s": budget_s,
    }
    return Designed(document | about, loaded, entries, points[0])


def _say_other_recipe(points: "list[Point]", suite: "Suite", wanted: Wanted) -> None:
    """A model that does not take the suite's headline recipe is predicted with another."""
    for point in points:
        if wanted.recipe is None and point.recipe.name != suite.headline.recipe:
            say(
                f"note: {point.model.name} does not take {suite.headline.recipe}, the recipe of"
                f" {suite.name}'s headline; {point.recipe.name} is planned for"
            )
