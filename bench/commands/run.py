"""How fast is it here?  run measures a suite, or says in advance what that takes."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.commands.parts.choose import (
    BUDGET,
    ChooseFor,
    Recipe,
    Wanted,
    Workload,
    Write,
    check_chosen,
    choose,
)
from bench.commands.parts.nodes import Gpus, NodeCount, On, Rendezvous, nodes_of, on_engine, on_gpus
from bench.commands.parts.options import (
    Device,
    Json,
    Set,
    Weights,
    check_cards,
    completes,
    duration,
    go_with,
    names_yaml,
)
from bench.commands.parts.output import exit_code, interrupted, print_for_programs, say, show
from bench.commands.parts.shards import ShardOption, ShardsHere, SideBySide, check_alone, with_shard
from bench.core.errors import Terminated, UserError, one_line
from bench.core.verbosity import verbosity

SuiteName = Annotated[
    str | None,
    typer.Argument(
        help=(
            "A name in configs/suites, or a YAML file; with --resume the directory's own by"
            " default, with --choose-for calibrate-cpu on a CPU and h100 on a GPU."
        ),
        show_default=False,
        callback=names_yaml,
        autocompletion=completes("suites"),
    ),
]
Out = Annotated[Path, typer.Option(help="Where results go: OUT/<gpu>/<time>_<suite>/.")]
Budget = Annotated[
    str | None,
    typer.Option(
        help="Stop measuring after this long, e.g. 8m, which --choose-for has by default."
    ),
]
Resume = Annotated[Path | None, typer.Option(help="Go on with a result directory.")]
MixEnvironments = Annotated[
    bool,
    typer.Option(
        "--mix-environments",
        help="With --resume: go on although the environment differs, with a warning.",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say how long it will take and what it costs.")
]
Calibration = Annotated[
    Path | None,
    typer.Option(
        help="A result to predict times from; the latest of this device under OUT by default."
    ),
]
UsdPerHour = Annotated[
    float | None, typer.Option("--price", help="USD per hour; by default the card's range.")
]
Tables = Annotated[
    bool, typer.Option("--tables", help="Print the tables of the report too, after the headline.")
]
Gpu = Annotated[
    str | None,
    typer.Option(
        help="With --dry-run or --choose-for: plan for this card of configs/gpus.",
        autocompletion=completes("gpus"),
    ),
]


def run(
    suite: SuiteName = None,
    device: Device = None,
    out: Out = Path("results"),
    budget: Budget = None,
    resume: Resume = None,
    mix_environments: MixEnvironments = False,
    dry_run: DryRun = False,
    calibration: Calibration = None,
    price: UsdPerHour = None,
    shard: ShardOption = None,
    shards_here: ShardsHere = None,
    on: On = None,
    gpus: Gpus = None,
    nodes: NodeCount = None,
    rendezvous: Rendezvous = None,
    gpu: Gpu = None,
    choose_for: ChooseFor = None,
    workload: Workload = None,
    recipe: Recipe = None,
    write: Write = None,
    overrides: Set = None,
    weights: Weights = None,
    with_tables: Tables = False,
    as_json: Json = False,
) -> int | None:
    """Measure a suite, calibrate, and write the report.  The last line on stdout is a JSON summary.

    --dry-run and --choose-for measure nothing. --budget leaves out points that are predicted not to
    fit. Exit code 1 where a point ended in error or timeout, or none ended ok."""
    check_cards(device, gpu)
    of_choice = {"--workload": workload, "--recipe": recipe, "--write": write, "--set": overrides}
    go_with("--choose-for", bool(choose_for), of_choice)
    go_with("--dry-run or --choose-for alone", dry_run or bool(choose_for), {"--gpu": gpu})
    if choose_for:
        check_chosen(resume, price, weights)
        wanted = Wanted(choose_for, workload, recipe, overrides or [])
        return choose(wanted, suite, budget or BUDGET, device, gpu, calibration, write, as_json)
    from bench.run.forecast import Forecaster
    from bench.run.suite import SuiteRun

    check_alone(shards_here, shard, gpus, resume, on, dry_run, weights)
    budget_s = duration(budget, "--budget") if budget is not None else None
    loaded = on_gpus(_suite(suite, resume, device, gpu, weights), gpus, nodes)
    if shards_here is not None:
        return _side_by_side(suite, shards_here, device, out, budget, as_json)
    of_shard, root = with_shard(loaded, shard, resume), _root(out, resume, mix_environments)
    forecast = Forecaster(of_shard, root, calibration)
    if dry_run:
        return _dry_run(forecast, resume, device, gpu, price, budget_s, as_json)
    group = nodes_of(gpus, nodes, rendezvous)
    where = {"device": device, "root": out, "resume": resume}
    how = {"mix_environments": mix_environments, "nodes": group, "budget_s": budget_s}
    asked = SuiteRun(suite=forecast.suite, forecast=forecast, **where, **how)
    return _measure(on_engine(on, asked), forecast, price, with_tables, as_json)


def _root(out: Path, resume: Path | None, mix_environments: bool) -> Path:
    """Where results of this kind lie.  Raises UserError for what goes with --resume alone."""
    go_with("--resume alone", resume is not None, {"--mix-environments": mix_environments})
    return out if resume is None else resume.absolute().parent.parent


def _side_by_side(
    suite: str | None,
    count: int,
    device: str | None,
    out: Path,
    budget: str | None,
    as_json: bool,
) -> int:
    """All shards at once -> the exit code."""
    directory = SideBySide(suite or "", count, _runs_on_cpu(device), out, budget).measure()
    return _report(directory, as_json)


def _suite(
    name: str | None,
    resume: Path | None,
    device: str | None,
    gpu: str | None,
    weights: list[str] | None,
) -> Any:
    """The suite that was asked for, with its weights; on a CPU the one that stands for it there."""
    from bench.core.load import load
    from bench.core.presets import names
    from bench.core.specs.suite import Suite
    from bench.core.user.weights import with_weights
    from bench.results.store import read_suite

    if name is None and resume is None:
        raise UserError(
            f"which suite? One of {', '.join(names('suites'))}, a path to a YAML file, or --resume"
            " DIRECTORY"
        )
    suite = load(Suite, name) if name is not None else read_suite(resume)
    if suite.on_cpu is not None and gpu is None and _runs_on_cpu(device):
        typer.echo(f"{suite.name} is for a GPU: running {suite.on_cpu}", err=True)
        suite = load(Suite, suite.on_cpu)
    return with_weights(suite, weights or [])


def _measure(
    asked: Any, forecast: Any, price: float | None, with_tables: bool, as_json: bool
) -> int:
    """Measure, calibrate, report and print the summary -> the exit code."""
    from bench.calibrate.read import read_calibration
    from bench.core.load import datasheet
    from bench.report.progress import SuiteProgress
    from bench.run.documents import spent_document
    from bench.run.jobs import most_ranks
    from bench.run.plan_time import price_of

    prices = price_of(None, price)
    if forecast.calibration is not None:
        read_calibration(forecast.calibration)  # a mistake is said before anything is measured
    started = time.monotonic()
    with SuiteProgress(asked.suite.name) as progress:
        watched = replace(asked, watch=progress.watch, opened=progress.opened)
        try:
            directory = watched.measure()
        except (KeyboardInterrupt, Terminated):
            if progress.directory is not None:
                with contextlib.suppress(OSError):  # a lost terminal has no lines
                    progress.note(one_line(interrupted(progress.directory)), always=True)
            raise
        progress.say("calibrating and writing the report")
        summary, tables, records = _finish(directory, progress.note)
    cards = most_ranks(asked.suite)
    prices = prices or price_of(datasheet(records[-1].environment.gpu), None, cards)
    summary |= {
        "spent": spent_document(forecast, time.monotonic() - started, prices),
        "skipped": forecast.skipped(records),
    }
    if not as_json and not verbosity.quiet:
        _print(summary, tables if with_tables or _answers(summary) else [])
    print_for_programs(summary, as_json)
    return exit_code(records)


def _report(directory: Path, as_json: bool) -> int:
    """Calibrate and report what shards measured, and print the summary -> the exit code."""
    summary, tables, records = _finish(directory, say)
    if not as_json and not verbosity.quiet:
        show(*tables)
    print_for_programs(summary, as_json)
    return exit_code(records)


def _print(summary: dict[str, Any], tables: list[Any]) -> None:
    from bench.report.tables.planning import headline_lines, skipped_table, spent_line

    typer.echo("\n".join(map(one_line, headline_lines(summary))))
    show(*tables, *([skipped_table(summary["skipped"])] if summary["skipped"] else []))
    typer.echo(spent_line(summary["spent"]))
    typer.echo(one_line(f"report: {summary['report_html']} (as text: report.md)"))


def _answers(summary: dict[str, Any]) -> bool:
    """Is a table the answer?  Of ablations, of steps on several ranks, and without a headline."""
    return "ablations" in summary or "steps_on_ranks" in summary or summary["headline"] is None


def _dry_run(
    forecast: Any,
    resume: Path | None,
    device: str | None,
    gpu: str | None,
    price: float | None,
    budget_s: float | None,
    as_json: bool,
) -> int:
    """Say what a run would take, on `gpu` or the calibrated card where no device is asked for."""
    from bench.calibrate.read import read_calibration
    from bench.core.load import datasheet
    from bench.measure.worker.process import Worker
    from bench.report.progress import Spinner
    from bench.report.tables.planning import plan_line, plan_table
    from bench.run.documents import plan_document
    from bench.run.jobs import most_ranks
    from bench.run.plan_time import price_of
    from bench.run.resume import jobs_left
    from bench.run.shards import jobs_here

    prices = price_of(None, price)
    if forecast.calibration is not None:
        calibrated = read_calibration(forecast.calibration).gpu
        gpu = gpu or (calibrated if device is None else None)
    with Worker("cpu" if gpu is not None else device) as worker, Spinner("counting"):
        name = gpu or worker.environment.gpu
        jobs = jobs_here(forecast.suite, worker, "cpu" if name == "cpu" else "cuda")
        forecast.begin(worker, jobs, gpu=gpu, probe=gpu is None)
        prices = prices or price_of(datasheet(name), None, most_ranks(forecast.suite))
        jobs = jobs_left(resume, forecast.suite, jobs)
        document = plan_document(forecast, jobs, worker, name, prices, budget_s)
    if not as_json and not verbosity.quiet:
        show(plan_table(document))
        typer.echo(plan_line(document))
    print_for_programs(document, as_json)
    return 0


def _runs_on_cpu(device: str | None) -> bool:
    if device is not None:
        return device == "cpu"
    from bench.measure.device.environment import choose_device

    return choose_device(None).type == "cpu"


def _finish(
    directory: Path, say: Callable[[str], None]
) -> tuple[dict[str, Any], list[Any], list[Any]]:
    """Calibrate and report a measured directory -> the JSON summary, the tables and the records.  A
    suite too small or too broken to calibrate still gets its report."""
    from bench.calibrate.make import calibrate as calibrate_result
    from bench.calibrate.scaling.check import errors, measured_steps
    from bench.core.load import datasheet
    from bench.report.documents import run_summary, steps_document
    from bench.report.tables.ablations import ablations_table, combinations_table
    from bench.report.tables.calibration import errors_table, parameters_table
    from bench.report.tables.forecasts import steps_errors_table, steps_on_ranks_table
    from bench.report.tables.points import points_table
    from bench.report.write import write_report
    from bench.results.manifest import write_manifest
    from bench.results.store import (
        CALIBRATION,
        disk_faults,
        point_records,
        read_records,
        read_suite,
    )
    from bench.run.plan_time import price_of
    from bench.studies.ablations.gains import ablations, ablations_document

    calibration = None
    try:
        if read_suite(directory).calibrate:
            calibration = calibrate_result(directory)
    except UserError as error:
        with disk_faults(directory):
            (directory / CALIBRATION).unlink(missing_ok=True)  # an older one is of other records
        say(f"not calibrated: {one_line(str(error))}")
    write_manifest(directory)
    path = write_report(directory, for_print=False)
    records = read_records(directory)
    points = point_records(records)
    rows = ablations(points, price_of(datasheet(records[-1].environment.gpu), None))
    tables = [ablations_table(rows), combinations_table(rows)] if rows else [points_table(points)]
    tables = [t for t in tables if t.rows]
    if steps := measured_steps(points):
        tables = [steps_on_ranks_table(steps), steps_errors_table(errors(steps))]
    elif calibration is not None:
        fit = calibration.fit_for(None)
        tables += [parameters_table(fit), errors_table(fit)]
    summary = run_summary(directory, path, records, calibration)
    if steps:
        summary["steps_on_ranks"] = steps_document(steps)
    if rows:
        summary["ablations"] = ablations_document(rows, records[-1].environment.device)
    return summary, tables, records
