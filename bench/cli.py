"""The command line: parses, calls, prints.  Nothing heavy is imported before a command needs it (torch costs 2 s).

Exit codes: 0 ok, 1 a verdict failed, 2 the user's mistake, 3 the environment; 129, 130, 143: hung up, Ctrl-C, SIGTERM.
With --json one JSON document goes to stdout and everything for people to stderr.
"""

import contextlib
import json
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.core.errors import EnvironmentFault, UserError, one_line

app = typer.Typer(
    name="ldt-bench", no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Build, count, time and calibrate latent diffusion transformers: minutes of video per GPU-hour.",
)

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Set = Annotated[list[str] | None, typer.Option(
    "--set", metavar="PATH=VALUE", help="Override a field, e.g. width=1024, workload.frames=17. Repeatable.")]
WorkloadName = Annotated[str, typer.Option("--workload", "-w", help="A name in configs/workloads, or a YAML file.")]
Device = Annotated[str | None, typer.Option("--device", help="cuda or cpu; cuda where there is one by default.")]
DOCTOR_TIMEOUT_S = 120.0
ResultDir = Annotated[Path, typer.Argument(help="A directory made by `ldt-bench run`.", show_default=False)]


@app.command("list")
def list_(kind: Annotated[str | None, typer.Argument(help="models, workloads, recipes, gpus or suites.")] = None,
          as_json: Json = False) -> None:
    """List the presets."""
    from bench.core.load import KINDS, load, names
    from bench.report.listing import describe

    kinds = [kind] if kind else list(KINDS)
    entries = [describe(k, load(KINDS[k], name)) for k in kinds for name in names(k)]
    if as_json:
        return _print_json(entries)
    from bench.report.tables import table

    _show(*(table(k, "name", "description", "summary", rows=[(e["name"], e["description"], e["summary"]) for e in entries
                                                    if e["kind"] == k]) for k in kinds))


@app.command()
def count(model: Annotated[str, typer.Argument(help="A name in configs/models, or a YAML file.", show_default=False)],
          workload: WorkloadName,
          recipe: Annotated[str, typer.Option(help="Its dtype decides the bytes.")] = "eager-bf16",
          overrides: Set = None, as_json: Json = False) -> None:
    """Count FLOPs, bytes and parameters of a model at a workload, on meta tensors; three counters must agree."""
    from bench.core.load import load_point, parse_overrides

    point = load_point(model, workload, recipe, parse_overrides(overrides or []))
    from bench.count.count import count_point
    from bench.count.document import count_document

    document = count_document(point, count_point(point))
    if as_json:
        return _print_json(document)
    from bench.report.tables import count_table, module_table

    _show(count_table(document), module_table(document))


@app.command()
def ceilings(device: Device = None,
             recipe: Annotated[list[str] | None, typer.Option(
                 help="Whose dtype and attention backend to probe; eager-bf16 on a GPU, eager-fp32 on a CPU.")] = None,
             as_json: Json = False) -> None:
    """Measure what this device reaches: GEMM, attention, 3D convolution, and memory by size."""
    from bench.core.load import load
    from bench.core.spec import Recipe
    from bench.measure.process import JobFailed, Worker
    from bench.report.documents import ceilings_document
    from bench.report.progress import Spinner
    from bench.report.tables import bandwidth_table, ceilings_table, gemm_ceiling
    from bench.suite import CEILINGS_SAMPLING, ceilings_only

    _check_device(device)
    with Worker(device) as worker:
        default = ["eager-bf16" if worker.environment.device == "cuda" else "eager-fp32"]
        recipes = [load(Recipe, name) for name in recipe or default]
        try:
            with Spinner("measuring ceilings") as spinner:
                record = ceilings_only(worker, recipes, CEILINGS_SAMPLING, lambda stage, samples: spinner.say(stage))
        except JobFailed as failure:
            raise EnvironmentFault(f"ceilings: {failure.outcome}: {failure.reason}") from None
    if as_json:
        return _print_json(ceilings_document(record))
    from bench.calibrate.calibrate import datasheet

    _show(ceilings_table(record, datasheet(record.environment.gpu)), bandwidth_table(record))
    typer.echo(gemm_ceiling(record))
    if record.reason:
        _say(f"warning: {record.reason}")


@app.command()
def doctor(device: Device = None,
           expect: Annotated[str | None, typer.Option(help="The card that was ordered, a name in configs/gpus.")] = None,
           out: Annotated[Path, typer.Option(help="Where results would go: its disk is looked at.")] = Path("results"),
           as_json: Json = False) -> int:
    """Is this node worth keeping?  Card, health, clocks under load, rates against published ones, host; under a minute.

    Exit code 0 for keep, 1 for suspicious or swap."""
    from bench.calibrate.acceptance import accept, broken
    from bench.calibrate.calibrate import datasheet
    from bench.core.errors import nearest
    from bench.core.load import names
    from bench.measure.process import JobFailed, Worker
    from bench.report.planning import acceptance_document, acceptance_table
    from bench.report.progress import Spinner

    _check_device(device)
    if expect is not None and expect not in names("gpus"):
        raise UserError(f"--expect {expect!r} is not one of {', '.join(names('gpus'))}{nearest(expect, names('gpus'))}")
    with Worker(device) as worker:
        environment = worker.environment
        try:
            with Spinner("examining this node"):
                readings = worker.run({"job": "doctor", "folder": str(out)}, DOCTOR_TIMEOUT_S, lambda stage, samples: None)
            accepted = accept(readings, environment.device, environment.device_name, environment.gpu,
                              datasheet(environment.gpu), wanted=expect)
        except JobFailed as failure:
            accepted = broken(failure.outcome, failure.reason)
    if as_json:
        _print_json(acceptance_document(environment, accepted))
    else:
        _show(acceptance_table(environment.device_name, accepted))
        typer.echo("\n".join([f"verdict: {accepted.verdict}", *(f"  {reason}" for reason in accepted.reasons)]))
    return 0 if accepted.verdict == "keep" else 1


@app.command()
def run(suite: Annotated[str | None, typer.Argument(
            help="A name in configs/suites, or a YAML file; with --resume the directory's own by default.",
            show_default=False)] = None,
        device: Device = None,
        out: Annotated[Path, typer.Option(help="Where results go: OUT/<gpu>/<time>_<suite>/.")] = Path("results"),
        budget: Annotated[str | None, typer.Option(help="Stop measuring after this long, e.g. 8m.")] = None,
        resume: Annotated[Path | None, typer.Option(help="Go on with a result directory.")] = None,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how long it will take and what it costs.")] = False,
        calibration: Annotated[Path | None, typer.Option(
            help="A result to predict times from; the latest of this device under OUT by default.")] = None,
        price: Annotated[float | None, typer.Option(help="USD per hour; by default the card's range.")] = None,
        gpu: Annotated[str | None, typer.Option(help="With --dry-run: plan for this card of configs/gpus.")] = None,
        as_json: Json = False) -> int:
    """Measure a suite, calibrate, and write the report.  The last line on stdout is a JSON summary.

    --dry-run measures nothing (but a quick probe on a device without records) and says time and cost.
    --budget leaves out points that are predicted not to fit, and says which.
    Exit code 1 where a point ended in error or timeout, or none ended ok."""
    from bench.calibrate.calibrate import datasheet
    from bench.calibrate.calibration import read_calibration
    from bench.calibrate.plan_time import price_of
    from bench.core.errors import nearest
    from bench.core.load import load, names
    from bench.core.spec import Suite
    from bench.core.store import read_suite
    from bench.core.units import parse_duration
    from bench.forecast import Forecaster, spent_document
    from bench.report.documents import run_failed
    from bench.report.planning import skipped_table, spent_line
    from bench.report.progress import SuiteProgress
    from bench.suite import run_suite

    _check_device(device)
    try:
        budget_s = None if budget is None else parse_duration(budget)
    except UserError as error:
        raise UserError(f"--budget: {error}") from None
    if suite is None and resume is None:
        raise UserError(f"which suite? One of {', '.join(names('suites'))}, a path to a YAML file, or --resume DIRECTORY")
    loaded = load(Suite, suite) if suite is not None else read_suite(resume)
    prices = price_of(None, price)
    if gpu is not None and (not dry_run or gpu not in names("gpus")):
        raise UserError("--gpu goes with --dry-run alone" if not dry_run else
                        f"--gpu {gpu!r} is not one of {', '.join(names('gpus'))}{nearest(gpu, names('gpus'))}")
    forecast = Forecaster(loaded, out if resume is None else resume.absolute().parent.parent, calibration)
    if calibration is not None:
        planned = read_calibration(calibration).gpu            # a mistake is said before anything is measured
        gpu = gpu or (planned if dry_run and device is None else None)
    if dry_run:
        return _dry_run(forecast, device, gpu, prices, budget_s, as_json)
    started = time.monotonic()
    with SuiteProgress(loaded.name) as progress:
        try:
            directory = run_suite(loaded, device=device, root=out, resume=resume, budget_s=budget_s,
                                  watch=progress.watch, opened=progress.opened, forecast=forecast)
        except (KeyboardInterrupt, Terminated):
            if progress.directory is not None:
                with contextlib.suppress(OSError):         # a lost terminal has no lines
                    progress.note(f"interrupted; what was measured is in {progress.directory}; "
                                  f"go on with: ldt-bench run --resume {progress.directory}")
            raise
        progress.say("calibrating and writing the report")
        summary, tables, records = _finish(directory, progress.note)
    prices = prices or price_of(datasheet(records[-1].environment.gpu), None)
    summary |= {"spent": spent_document(forecast, time.monotonic() - started, prices), "skipped": forecast.skipped(records)}
    if not as_json:
        _show(*tables, *([skipped_table(summary["skipped"])] if summary["skipped"] else []))
        typer.echo(spent_line(summary["spent"]))
        typer.echo(f"report: {summary['report']}")
    _print_json(summary)
    return 1 if run_failed(records) else 0


@app.command("check-timer")
def check_timer_(model: Annotated[str, typer.Argument(help="A name in configs/models, or a YAML file.")] = "tiny",
                 workload: WorkloadName = "tiny-video",
                 recipe: Annotated[str, typer.Option(help="How it is run.")] = "eager-fp32",
                 device: Device = None,
                 rounds: Annotated[int, typer.Option(help="Rounds of five calls each way.", min=6, max=10_000)] = 40,
                 overrides: Set = None, as_json: Json = False) -> None:
    """Hold the harness's clock against a bare loop and torch.utils.benchmark; on CUDA also against a graph replay."""
    from bench.core.load import load_point, parse_overrides

    _check_device(device)
    point = load_point(model, workload, recipe, parse_overrides(overrides or []))
    import torch

    from bench.measure.clock import clock_for
    from bench.measure.environment import choose_device
    from bench.measure.point import build_calls
    from bench.measure.sdpa import sdpa_backend
    from bench.measure.timer_check import check_timer
    from bench.report.progress import Spinner
    from bench.report.tables import timer_table

    chosen = choose_device(device)
    call = build_calls(point, chosen)[0]["denoise_step"]
    with torch.inference_mode(), sdpa_backend(point.recipe.attention), Spinner("timing in turns") as spinner:
        checked = check_timer(call, chosen, clock_for(chosen), rounds,
                              lambda done: spinner.say(f"round {done} of {rounds}"))
    if as_json:
        _print_json({"point": point.label, **checked.as_dict()})
    else:
        _show(timer_table(point.label, checked.as_dict()))
    if not checked.agrees:
        raise typer.Exit(1)


@app.command()
def calibrate(result_dir: ResultDir, as_json: Json = False) -> None:
    """Fit utilisation by operator class to a result's records, beside the constant-utilisation baseline."""
    from bench.calibrate.calibrate import calibrate as calibrate_result
    from bench.report.documents import calibration_document
    from bench.report.tables import errors_table, parameters_table

    calibration = calibrate_result(result_dir)
    if as_json:
        return _print_json(calibration_document(calibration))
    _show(*(t for fit in calibration.fits.values() for t in (parameters_table(fit), errors_table(fit))))


@app.command()
def predict(model: Annotated[str, typer.Argument(help="A name in configs/models, or a YAML file.", show_default=False)],
            workload: WorkloadName,
            calibration: Annotated[Path, typer.Option(help="A result directory.")],
            recipe: Annotated[str | None, typer.Option(help="A calibrated recipe; the headline's by default.")] = None,
            overrides: Set = None, as_json: Json = False) -> None:
    """Predict seconds, minutes of video per GPU-hour, dollars and kWh of any model at any workload."""
    from bench.calibrate.calibrate import estimate, load_or_calibrate
    from bench.core.load import load_point, parse_overrides
    from bench.report.documents import estimate_document
    from bench.report.tables import estimate_table

    calibrated = load_or_calibrate(calibration)
    point = load_point(model, workload, calibrated.fit_for(recipe).recipe, parse_overrides(overrides or []))
    predicted = estimate(point, calibrated)
    if as_json:
        return _print_json(estimate_document(point, calibrated, predicted))
    _show(estimate_table(f"{point.label} on {calibrated.gpu}", predicted))
    for warning in predicted.warnings:
        _say(f"warning: {warning}")


@app.command()
def analytic(calibration: Annotated[Path | None, typer.Option(help="A result directory: adds calibrated values.")] = None,
             as_json: Json = False) -> None:
    """The pencil estimate A1 to A17, as printed and as computed, and the waterfall to the calibrated figure."""
    from bench.calibrate.analytic import Assumptions, chain
    from bench.calibrate.demand import Demand, Headroom
    from bench.calibrate.waterfall import waterfall

    reference = None
    if calibration is not None:
        from bench.calibrate.calibrate import load_or_calibrate

        calibrated = load_or_calibrate(calibration)
        reference = calibrated.reference
        if reference is None:
            raise UserError(f"--calibration {calibration}: {calibrated.reference_missing}")
    assumptions = Assumptions()
    rows = chain(assumptions, Demand(), Headroom(), reference.minutes.model_dump() if reference else None)
    bars = waterfall(assumptions, reference)
    if as_json:
        return _print_json({"rows": [r.as_dict() for r in rows], "waterfall": [b.as_dict() for b in bars],
                            "warnings": reference.warnings if reference else []})
    from bench.report.tables import chain_table, waterfall_table

    _show(chain_table(rows), waterfall_table(bars))
    for warning in reference.warnings if reference else []:
        _say(f"warning: {warning}")


@app.command()
def report(result_dir: ResultDir, as_json: Json = False) -> None:
    """Write report.md and the figures of a result anew."""
    from bench.report.markdown import write_report

    path = write_report(result_dir)
    _print_json({"report": str(path)}) if as_json else typer.echo(str(path))


@app.command()
def compare(a: Annotated[Path, typer.Argument(help="A result directory: the one before.", show_default=False)],
            b: Annotated[Path | None, typer.Argument(
                help="The one after.  Left out: A is held against the last runs of its cohort (--history).",
                show_default=False)] = None,
            threshold: Annotated[float | None, typer.Option(
                help="Share that is worth a look; 0.02 on a GPU, 0.05 on a CPU by default.", show_default=False)] = None,
            history: Annotated[Path | None, typer.Option(
                help="With one directory: the folder of earlier results; by default the one it lies in.")] = None,
            allow_different: Annotated[bool, typer.Option(
                "--allow-different", help="Compare although the environments differ, with a warning.")] = False,
            markdown: Annotated[bool, typer.Option("--markdown", help="A Markdown table on stdout.")] = False,
            as_json: Json = False) -> int:
    """Is b slower than a?  SAME, FASTER, SLOWER or UNCLEAR for each stage of each point of two results.

    Exit code 1 where anything is SLOWER, 2 where the results cannot be compared."""
    from bench.calibrate.compare import compare as compare_results
    from bench.calibrate.compare import compare_history
    from bench.core.store import read_records
    from bench.report.comparison import comparison_document, comparison_lines, comparison_markdown, comparison_table

    if b is not None:
        if history is not None:
            raise UserError("--history takes one result directory, not two")
        named, newer = [str(a)], b
        compared = compare_results(read_records(a), read_records(b), threshold=threshold, allow_different=allow_different)
    elif allow_different:
        raise UserError("--allow-different takes two result directories: a history holds runs of one environment")
    else:
        records, folder, newer = read_records(a), history or a.absolute().parent, a
        named = [str(folder)]
        compared = compare_history(records, _results_in(folder, a), threshold=threshold)
    if as_json:
        _print_json(comparison_document(compared, named, str(newer)))
    elif markdown:
        typer.echo(comparison_markdown(compared))
    else:
        _show(comparison_table(compared))
        for line in comparison_lines(compared):
            typer.echo(one_line(line))
    for warning in [] if as_json or markdown else compared.warnings:
        _say(f"warning: {one_line(warning)}")
    return 1 if compared.verdict == "SLOWER" else 0


def _results_in(folder: Path, but: Path) -> list[list[Any]]:
    """Records of the readable results in a folder; one that cannot be read is left out with a warning."""
    from bench.core.store import RECORDS, read_records

    if not folder.is_dir():
        raise UserError(f"--history {folder}: no such folder")
    found = []
    for path in sorted(p.parent for p in folder.glob(f"*/{RECORDS}") if p.parent.resolve() != but.resolve()):
        try:
            found.append(read_records(path))
        except UserError as error:
            _say(f"warning: left out: {one_line(str(error))}")
    return found


def _dry_run(forecast: Any, device: str | None, gpu: str | None, price: Any, budget_s: float | None, as_json: bool) -> int:
    """Say what a run would take, and end."""
    from bench.calibrate.calibrate import datasheet
    from bench.calibrate.plan_time import price_of
    from bench.forecast import plan_document
    from bench.measure.process import Worker
    from bench.report.planning import plan_line, plan_table
    from bench.report.progress import Spinner
    from bench.suite import suite_jobs

    jobs = suite_jobs(forecast.suite)
    with Worker("cpu" if gpu is not None else device) as worker, Spinner("counting"):
        name = gpu or worker.environment.gpu
        forecast.begin(worker, jobs, gpu=gpu, probe=gpu is None)
        document = plan_document(forecast, jobs, worker, name, price or price_of(datasheet(name), None), budget_s)
    if not as_json:
        _show(plan_table(document))
        typer.echo(plan_line(document))
    _print_json(document)
    return 0


def _finish(directory: Path, say: Callable[[str], None]) -> tuple[dict[str, Any], list[Any], list[Any]]:
    """Calibrate and report a measured directory -> the JSON summary, the tables and the records.  A suite too small or
    too broken to calibrate still gets its report."""
    from bench.calibrate.calibrate import calibrate as calibrate_result
    from bench.core.store import point_records, read_records
    from bench.report.documents import run_summary
    from bench.report.markdown import write_report
    from bench.report.tables import errors_table, parameters_table, points_table

    try:
        calibration = calibrate_result(directory)
    except UserError as error:
        calibration = None
        say(f"not calibrated: {one_line(str(error))}")
    path = write_report(directory)
    records = read_records(directory)
    tables = [points_table(point_records(records))]
    if calibration is not None:
        fit = calibration.fit_for(None)
        tables += [parameters_table(fit), errors_table(fit)]
    return run_summary(directory, path, records, calibration), tables, records


def _check_device(device: str | None) -> None:
    if device not in (None, "cpu", "cuda"):
        from bench.core.errors import nearest

        raise UserError(f"--device {device!r} is not one of cpu, cuda{nearest(device, ['cpu', 'cuda'])}")


def _print_json(document: Any) -> None:
    typer.echo(json.dumps(document, allow_nan=False))


def _say(text: str) -> None:
    typer.echo(text, err=True)


def _show(*tables: Any) -> None:
    from rich.console import Console

    class ToStdout(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError          # rich's own exits with 1; the reader has merely seen enough

    # Piped output has no width of its own: 80 columns would cut names, so it gets room.
    console = ToStdout(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 120)
    for table in tables:
        console.print(table)


class Terminated(BaseException):
    """SIGTERM or a lost terminal: handled as Ctrl-C is, with the exit code of the signal (typer makes any
    KeyboardInterrupt a 130)."""

    def __init__(self, number: int):
        super().__init__(number)
        self.exit_code = 128 + number


def main() -> None:
    """The entry point: every foreseen failure is one line on stderr and an exit code."""
    warnings.showwarning = lambda message, category, *rest, **kwargs: (
        _say(f"warning: {one_line(str(message))}") if issubclass(category, UserWarning) else None)
    _open_streams()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:       # nohup ignores SIGHUP, and so does what it started
            signal.signal(number, _terminate)
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
    except (UserError, EnvironmentFault) as error:
        _fail(error)
        code = error.exit_code
    except Terminated as error:
        code = error.exit_code
    except KeyboardInterrupt:
        code = 130
    except SystemExit as error:            # click's way out of a closed pipe while it prints help
        code = 0 if isinstance(error.__context__, BrokenPipeError) else error.code
    except BrokenPipeError:                # the reader of a pipe has gone: nothing is left to say
        code = 0
    except OSError as error:
        if "LDT_BENCH_DEBUG" in os.environ:
            raise
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{(error.strerror or str(error)).lower()}")
        code = EnvironmentFault.exit_code
    except Exception as error:
        code = _foreseen(error)
        if code is None:
            raise
    try:
        sys.stdout.flush()
    except OSError:                        # said above, or the reader has gone; and Python would try once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code if isinstance(code, int) else 0)


def _open_streams() -> None:
    """Closed streams (`>&-`) lead nowhere, so that no other file takes their number; a name that the terminal's
    encoding lacks is shown with a replacement."""
    for number, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            os.open(os.devnull, os.O_RDWR)         # takes the lowest free number, which is this one
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))
        elif number and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace" if number == 1 else "backslashreplace")


def _terminate(number: int, frame: Any) -> None:
    signal.signal(number, signal.SIG_IGN)          # once is enough: what follows writes the last lines
    raise Terminated(number)


def _fail(error: object) -> None:
    with contextlib.suppress(OSError):             # the terminal may be what was lost
        _say(f"error: {one_line(str(error))}")


def _foreseen(error: Exception) -> int | None:
    """Exit code of a usage error or a failed count, said in one line; None for a bug, which keeps its traceback."""
    message = getattr(error, "format_message", None)      # click's, or the one that typer carries with it
    if message is not None:
        if message():
            _fail(f"{message()} (ldt-bench --help)")
        return int(getattr(error, "exit_code", 2))
    if type(error).__name__ == "Abort":
        return 130
    if type(error).__name__ in ("CountMismatch", "UncountedOperator"):
        _fail(error)
        return 1
    return None


if __name__ == "__main__":
    main()
