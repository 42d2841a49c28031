"""Measure a suite, or say in advance what that takes: run."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.commands.options import Device, Json, check_device, check_gpu, completes
from bench.commands.output import print_json, show
from bench.core.errors import Terminated, UserError, one_line
from bench.core.verbosity import verbosity


def run(
    suite: Annotated[
        str | None,
        typer.Argument(
            help=(
                "A name in configs/suites, or a YAML file; with --resume the directory's own by"
                " default."
            ),
            show_default=False,
            autocompletion=completes("suites"),
        ),
    ] = None,
    device: Device = None,
    out: Annotated[Path, typer.Option(help="Where results go: OUT/<gpu>/<time>_<suite>/.")] = Path(
        "results"
    ),
    budget: Annotated[
        str | None, typer.Option(help="Stop measuring after this long, e.g. 8m.")
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with a result directory.")] = None,
    mix_environments: Annotated[
        bool,
        typer.Option(
            "--mix-environments",
            help="With --resume: go on although the environment differs, with a warning.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say how long it will take and what it costs.")
    ] = False,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="A result to predict times from; the latest of this device under OUT by default."
        ),
    ] = None,
    price: Annotated[
        float | None, typer.Option(help="USD per hour; by default the card's range.")
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(
            help="With --dry-run: plan for this card of configs/gpus.",
            autocompletion=completes("gpus"),
        ),
    ] = None,
    as_json: Json = False,
) -> int:
    """Measure a suite, calibrate, and write the report.  The last line on stdout is a JSON summary.

    --quiet leaves out the tables too. --dry-run measures nothing (but a quick probe on a device
    without records) and says time and cost. --budget leaves out points that are predicted not to
    fit, and says which. Exit code 1 where a point ended in error or timeout, or none ended ok."""
    from bench.calibrate.read import read_calibration
    from bench.core.load import datasheet, load, names
    from bench.core.specs.suite import Suite
    from bench.core.units import parse_duration
    from bench.report.documents import run_failed
    from bench.report.progress import SuiteProgress
    from bench.report.tables.planning import headline_lines, skipped_table, spent_line
    from bench.results.store import read_suite
    from bench.run.documents import spent_document
    from bench.run.forecast import Forecaster
    from bench.run.plan_time import price_of
    from bench.run.suite import SuiteRun

    check_device(device)
    try:
        budget_s = None if budget is None else parse_duration(budget)
    except UserError as error:
        raise UserError(f"--budget: {error}") from None
    if suite is None and resume is None:
        raise UserError(
            f"which suite? One of {', '.join(names('suites'))}, a path to a YAML file, or --resume"
            " DIRECTORY"
        )
    if mix_environments and resume is None:
        raise UserError("--mix-environments goes with --resume alone")
    loaded = load(Suite, suite) if suite is not None else read_suite(resume)
    if loaded.on_cpu is not None and gpu is None and _runs_on_cpu(device):
        typer.echo(f"{loaded.name} is for a GPU: running {loaded.on_cpu}", err=True)
        loaded = load(Suite, loaded.on_cpu)
    prices = price_of(None, price)
    if gpu is not None and not dry_run:
        raise UserError("--gpu goes with --dry-run alone")
    check_gpu(gpu)
    forecast = Forecaster(
        loaded, out if resume is None else resume.absolute().parent.parent, calibration
    )
    if calibration is not None:
        planned = read_calibration(calibration).gpu  # a mistake is said before anything is measured
        gpu = gpu or (planned if dry_run and device is None else None)
    if dry_run:
        return _dry_run(forecast, device, gpu, prices, budget_s, as_json)
    started = time.monotonic()
    with SuiteProgress(loaded.name) as progress:
        try:
            directory = SuiteRun(
                suite=loaded,
                device=device,
                root=out,
                resume=resume,
                mix_environments=mix_environments,
                budget_s=budget_s,
                forecast=forecast,
                watch=progress.watch,
                opened=progress.opened,
            ).measure()
        except (KeyboardInterrupt, Terminated):
            if progress.directory is not None:
                with contextlib.suppress(OSError):  # a lost terminal has no lines
                    progress.note(
                        f"interrupted; what was measured is in {progress.directory}; "
                        f"go on with: ldt-bench run --resume {progress.directory}",
                        always=True,
                    )
            raise
        progress.say("calibrating and writing the report")
        summary, tables, records = _finish(directory, progress.note)
    prices = prices or price_of(datasheet(records[-1].environment.gpu), None)
    summary |= {
        "spent": spent_document(forecast, time.monotonic() - started, prices),
        "skipped": forecast.skipped(records),
    }
    if not as_json and not verbosity.quiet:
        show(*tables, *([skipped_table(summary["skipped"])] if summary["skipped"] else []))
        typer.echo("\n".join(map(one_line, headline_lines(summary))))
        typer.echo(spent_line(summary["spent"]))
        typer.echo(f"report: {summary['report_html']} (as text: report.md)")
    print_json(summary)
    return 1 if run_failed(records) else 0


def _dry_run(
    forecast: Any,
    device: str | None,
    gpu: str | None,
    price: Any,
    budget_s: float | None,
    as_json: bool,
) -> int:
    """Say what a run would take, and end."""
    from bench.core.load import datasheet
    from bench.measure.worker.process import Worker
    from bench.report.progress import Spinner
    from bench.report.tables.planning import plan_line, plan_table
    from bench.run.documents import plan_document
    from bench.run.jobs import suite_jobs
    from bench.run.plan_time import price_of

    jobs = suite_jobs(forecast.suite)
    with Worker("cpu" if gpu is not None else device) as worker, Spinner("counting"):
        name = gpu or worker.environment.gpu
        forecast.begin(worker, jobs, gpu=gpu, probe=gpu is None)
        document = plan_document(
            forecast, jobs, worker, name, price or price_of(datasheet(name), None), budget_s
        )
    if not as_json and not verbosity.quiet:
        show(plan_table(document))
        typer.echo(plan_line(document))
    print_json(document)
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
    from bench.core.load import datasheet
    from bench.report.documents import run_summary
    from bench.report.tables.ablations import ablations_table, combinations_table
    from bench.report.tables.calibration import errors_table, parameters_table
    from bench.report.tables.points import points_table
    from bench.report.write import write_report
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
    path = write_report(directory, for_print=False)
    records = read_records(directory)
    points = point_records(records)
    rows = ablations(points, price_of(datasheet(records[-1].environment.gpu), None))
    tables = [ablations_table(rows), combinations_table(rows)] if rows else [points_table(points)]
    tables = [t for t in tables if t.rows]
    if calibration is not None:
        fit = calibration.fit_for(None)
        tables += [parameters_table(fit), errors_table(fit)]
    summary = run_summary(directory, path, records, calibration)
    if rows:
        summary["ablations"] = ablations_document(rows, records[-1].environment.device)
    return summary, tables, records
