"""The command line: names the commands, sets exit codes.  Nothing heavy is imported before a
command needs it (torch costs 2 s), so the files of `bench/commands/` import what they call inside
each command.

Exit codes: 0 ok, 1 a verdict failed, 2 the user's mistake, 3 the environment; 129, 130, 143: hung
up, Ctrl-C, SIGTERM. With --json one JSON document goes to stdout and everything for people to
stderr.
"""

import contextlib
import os
import re
import signal
import sys
import time
import traceback
import warnings
from typing import Annotated, Any

import typer

from bench.commands.calibrate import calibrate
from bench.commands.cards import cards
from bench.commands.count import count
from bench.commands.doctor import doctor
from bench.commands.explore import explore
from bench.commands.export import export
from bench.commands.follow import follow
from bench.commands.list_presets import list_presets
from bench.commands.merge import merge
from bench.commands.parts.old_names import OLD_NAMES
from bench.commands.parts.options import Quiet, Verbose, set_verbosity, with_verbosity
from bench.commands.parts.output import complain, say
from bench.commands.predict import predict
from bench.commands.profile import profile
from bench.commands.report import report
from bench.commands.run import run
from bench.commands.studies.analytic import analytic
from bench.commands.studies.check import check
from bench.commands.studies.claims import claims
from bench.commands.studies.compare import compare
from bench.commands.studies.fleet import fleet
from bench.commands.studies.loadgen import loadgen
from bench.commands.studies.serve_sim import serve_sim
from bench.commands.studies.verify import verify
from bench.commands.studies.versus import versus
from bench.core.errors import EnvironmentFault, Renamed, Terminated, UserError, nearest, one_line
from bench.core.verbosity import verbosity
from bench.core.version import version

app = typer.Typer(
    name="ldt-bench",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help=(
        "Build, count, time and calibrate latent diffusion transformers: minutes of video per"
        " GPU-hour."
    ),
)
CLICK_ERROR: Any = typer.BadParameter.__mro__[2]
"""click's ClickException, or that of the click which typer carries with it."""
COMMANDS = {  # in the order of --help
    "list": list_presets,
    "count": count,
    "profile": profile,
    "doctor": doctor,
    "run": run,
    "follow": follow,
    "merge": merge,
    "cards": cards,
    "calibrate": calibrate,
    "predict": predict,
    "analytic": analytic,
    "claims": claims,
    "report": report,
    "export": export,
    "compare": compare,
    "check": check,
    "versus": versus,
    "verify": verify,
    "serve-sim": serve_sim,
    "fleet": fleet,
    "loadgen": loadgen,
    "explore": explore,
}
for name, command in COMMANDS.items():
    app.command(name)(with_verbosity(command))
for name, command in OLD_NAMES.items():
    app.command(name, hidden=True)(with_verbosity(command))


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"ldt-bench {version()}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Say which it is.")
]


@app.callback(help=app.info.help)
def _before(quiet: Quiet = False, verbose: Verbose = False, asked: Version = False) -> None:
    verbosity.quiet = verbosity.verbose = False
    set_verbosity(quiet, verbose)


def main() -> None:
    """The entry point: every foreseen failure is one line on stderr and an exit code."""
    started = time.monotonic()
    warnings.showwarning = _warn
    _open_streams()
    for number in (signal.SIGTERM, signal.SIGHUP):
        # nohup ignores SIGHUP, and so does what it started.
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _terminate)
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
    except (UserError, EnvironmentFault) as error:
        if verbosity.verbose and error.__cause__ is not None:
            traceback.print_exception(error.__cause__)  # of a user's own class
        _fail(error)
        code = error.exit_code
    except Terminated as error:
        code = error.exit_code
    except KeyboardInterrupt:
        code = 130
    except SystemExit as error:  # click's way out of a closed pipe while it prints help
        code = 0 if isinstance(error.__context__, BrokenPipeError) else error.code
    except BrokenPipeError:  # the reader of a pipe has gone: nothing is left to say
        code = 0
    except OSError as error:
        if verbosity.debug:
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
    except OSError:  # said above, or the reader has gone; and Python would try once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if verbosity.verbose:
        with contextlib.suppress(OSError):
            say(_ran(time.monotonic() - started))
    sys.exit(code if isinstance(code, int) else 0)


def _warn(message: Any, category: type[Warning], *_: Any, **__: Any) -> None:
    if verbosity.verbose or issubclass(category, UserWarning):
        kind = "note" if issubclass(category, Renamed) else "warning"
        say(f"{kind}: {one_line(str(message))}")


def _open_streams() -> None:
    """Closed streams (`>&-`) lead nowhere, so that no other file takes their number; a name that
    the terminal's encoding lacks is shown with a replacement."""
    for number, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))
        elif number and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace" if number == 1 else "backslashreplace")


def _terminate(number: int, frame: Any) -> None:
    signal.signal(number, signal.SIG_IGN)  # once is enough: what follows writes the last lines
    raise Terminated(number)


def _ran(wall_s: float) -> str:
    """What ran, for --verbose and bug reports; a package that was not imported is not for that."""
    from bench.core.units import seconds

    loaded = [
        f"{name} {sys.modules[name].__version__}"
        for name in ("torch", "diffusers")
        if name in sys.modules
    ]
    return (
        f"Python {'.'.join(map(str, sys.version_info[:3]))},"
        f" {', '.join([*loaded, f'took {seconds(wall_s)}'])}"
    )


def _fail(error: object) -> None:
    with contextlib.suppress(OSError):  # the terminal may be what was lost
        complain(f"error: {one_line(str(error))}")


def _foreseen(error: Exception) -> int | None:
    """Exit code of a usage error or a failed count, said in one line; None for a bug, which keeps
    its traceback."""
    if isinstance(error, CLICK_ERROR):
        said = error.format_message()
        if said:
            _fail(f"{said}{_meant(said)} (ldt-bench --help)")
        return int(error.exit_code)
    if isinstance(error, typer.Abort):
        return 130
    # Both import torch, and an error of theirs has it imported already.
    from bench.count.checks import CountMismatch
    from bench.count.rules import UncountedOperator

    if isinstance(error, (CountMismatch, UncountedOperator)):
        _fail(error)
        return 1
    return None


def _meant(message: str) -> str:
    """The nearest command, where typer (before 0.20) does not say it."""
    unknown = re.fullmatch(r"No such command '(.*)'\.?", message)
    return nearest(unknown[1], COMMANDS) if unknown else ""


if __name__ == "__main__":
    main()
