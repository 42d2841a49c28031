"""How the commands behave as programs: quiet and verbose, near misses, narrow and colourless
terminals, pipes, completion."""

import json
import os
import re
import subprocess
import sys

import pytest

from bench.cli import COMMANDS
from bench.core.verbosity import verbosity
from support.paths import ROOT

ANSI = re.compile(r"\x1b\[")
SUITE = (
    "ceilings: false\nsampling: {target_relative_half_width: 0.5, min_samples: 3, max_samples: 3,"
    " max_s: 0.1}\ndescription: one point\npoint_timeout_s: 60\npoints:\n  - {model: tiny,"
    " workload: tiny-image, recipe: eager}\ndtype: fp32\n"
    "headline: {model: tiny, workload: tiny-image, recipe: eager}\n"
)


@pytest.fixture(autouse=True)
def _as_before():
    yield
    verbosity.quiet = verbosity.verbose = False


@pytest.mark.parametrize(
    ("args", "meant"),
    [
        (["predcit"], "predict"),
        (["lst"], "list"),
        (["list", "workload"], "workloads"),
        (["count", "sora-20", "-w", "image-512"], "sora-20b"),
        (["count", "tiny", "-w", "tiny-clp"], "tiny-clip"),
        (["count", "tiny", "-w", "tiny-clip", "--recipe", "eagr"], "eager"),
        (["count", "tiny", "-w", "tiny-clip", "--set", "widht=3"], "width"),
        (["count", "tiny", "-w", "tiny-clip", "--set", "workload.frmaes=3"], "frames"),
        (["count", "tiny", "-w", "tiny-clip", "--set", "worklaod.frames=3"], "workload"),
        (["count", "tiny", "--workloda", "tiny-clip"], "--workload"),
        (["run", "smok"], "smoke"),
        (["run", "smoke", "--device", "cuad"], "cuda"),
        (["run", "smoke", "--dry-run", "--gpu", "h100-sx"], "h100-sxm"),
        (["doctor", "--expect", "h100-sx"], "h100-sxm"),
        (["analytic", "--gpu", "h100-sx"], "h100-sxm"),
        (["run", "--choose-for", "tiny", "-w", "image-512", "--gpu", "h100-sx"], "h100-sxm"),
        (["claims", "--claim", "sora-analsis"], "sora-analysis"),
        (
            [
                "versus",
                "tiny",
                "tiny",
                "-w",
                "tiny-clip",
                "--recipe",
                "eager",
                "--stage",
                "vae_decod",
            ],
            "vae_decode",
        ),
    ],
)
def test_near_misses_of_every_kind_of_name(here, args, meant):
    code, out, err = here(*args)
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    said = re.search(r"[Dd]id you mean '?([\w.-]+)'?\?|Possible options: ([\w-]+)", line)
    assert said, line
    assert meant in said.groups()


def test_a_recipe_that_was_not_calibrated_has_its_nearest(here, measured):
    code, _, err = here(
        "predict",
        "tiny",
        "-w",
        "tiny-clip",
        "--calibration",
        str(measured[0]),
        "--recipe",
        "eager-fp23",
    )
    assert (code, "did you mean eager-fp32?" in err) == (2, True)


def test_every_command_takes_quiet_and_verbose(here):
    for name in COMMANDS:
        out = here(name, "--help")[1]
        assert "--quiet" in out, name
        assert "--verbose" in out, name
    assert {"--quiet", "--verbose", "--install-completion"} <= set(
        re.findall(r"--[a-z-]+", here("--help")[1])
    )


@pytest.mark.parametrize(
    "args",
    [["--quiet", "count", "tiny", "-w", "tiny-clp"], ["count", "tiny", "-w", "tiny-clp", "-q"]],
)
def test_quiet_still_shows_errors(here, args):
    code, out, err = here(*args)
    assert (code, out) == (2, "")
    assert err.startswith("error: unknown workload")


def test_quiet_leaves_out_warnings_and_keeps_the_result(here, measured):
    args = ["predict", "dit-s-2", "-w", "image-512", "--calibration", str(measured[0])]
    quiet, loud = here("-q", *args), here(*args)  # and quiet does not last for the next command
    assert "warning: " in loud[2]
    assert quiet[2] == ""
    assert quiet[1] == loud[1] != ""


def test_quiet_run_prints_its_json_and_nothing_else(here, tmp_path):
    suite = tmp_path / "one.yaml"
    suite.write_text(SUITE)
    code, out, err = here("run", str(suite), "--device", "cpu", "--out", str(tmp_path), "--quiet")
    assert (code, err) == (0, "")
    (line,) = out.splitlines()
    assert sum(json.loads(line)["outcomes"].values()) == 1


def test_a_failed_verdict_is_said_although_quiet(here, measured):
    from bench.commands.parts.output import complain, say

    verbosity.quiet = True
    say("a note")
    complain("a verdict")
    assert here("list", "--quiet", "--verbose")[0] == 2


def test_verbose_says_what_ran(here):
    assert re.fullmatch(r"Python 3\.\d+\.\d+, .*took .*\n", here("-v", "list", "recipes")[2])
    assert here("list", "recipes")[2] == ""


@pytest.mark.parametrize(
    "command", [["list"], ["analytic"], ["claims"], ["count", "tiny", "-w", "tiny-clip"]]
)
@pytest.mark.parametrize("width", [80, 60, 200])
def test_tables_fit_the_terminal_and_break_no_number(here, monkeypatch, command, width):
    monkeypatch.setenv("COLUMNS", str(width))
    code, out, _ = here(*command)
    assert code == 0
    assert max(map(len, out.splitlines())) <= width or command == [
        "claims"
    ]  # its reasons are lines of prose
    assert "…" not in out
    assert not re.search(r"\de\+\d?\s*[│\n]", out), "a number is broken"


def test_a_table_too_wide_is_a_paragraph_a_row():
    from rich.console import Console

    from bench.report.tables.table import numbers, table
    from bench.report.terminal import fitted

    columns = ["parameter", numbers("value"), "unit"]
    rows = [("linear_efficiency_of_it", "0.848", "share_of_ceiling"), ("conv", "–", "x")]
    for width, starts in ((70, "┏"), (52, "parameter"), (40, "parameter: linear_efficiency_of_it")):
        console = Console(width=width)
        with console.capture() as captured:
            console.print(fitted(table("Fit", columns, rows), console))
        lines = captured.get().splitlines()
        assert lines[0].strip() == "Fit"
        assert lines[1].startswith(starts), (width, lines)
        assert max(map(len, lines)) <= width
        assert any("linear_efficiency_of_it" in line for line in lines)
    assert "  value: –" not in lines


def test_piped_output_has_no_colours_and_no_bars():
    done = subprocess.run(
        [sys.executable, "-m", "bench.cli", "count", "tiny", "-w", "tiny-clip"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    assert not ANSI.search(done.stdout + done.stderr)
    assert done.stderr == ""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize(
    ("env", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_a_terminal_gets_colours_unless_it_wants_none(env, coloured):
    text = on_a_terminal(["list", "gpus"], env)
    assert "h100-sxm" in text
    assert (
        bool(re.search(r"\x1b\[(?:\d+;)*3\d", text)) is False
    )  # styles are bold, not colours: themes differ
    assert bool(re.search(r"\x1b\[1m", text)) is (coloured or "NO_COLOR" in env)


def on_a_terminal(args: list[str], env: dict[str, str]) -> str:
    """What a command writes where stdout and stderr are a terminal of 80 columns."""
    import pty

    leader, follower = pty.openpty()
    kept = {
        k: v
        for k, v in os.environ.items()
        if k not in ("NO_COLOR", "TERM", "COLUMNS", "FORCE_COLOR")
    }
    child = subprocess.Popen(
        [sys.executable, "-m", "bench.cli", *args],
        stdout=follower,
        stderr=follower,
        cwd=ROOT,
        env={**kept, "TERM": "xterm-256color", **env},
    )
    os.close(follower)
    read = b""
    while True:
        try:
            part = os.read(leader, 65536)
        except OSError:  # Linux's way of saying that the other end is closed
            break
        if not part:
            break
        read += part
    os.close(leader)
    assert child.wait() == 0
    return read.decode()


def test_progress_has_the_time_left_once_it_is_known(monkeypatch):
    import io

    from bench.report import progress

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress.Spinner("counting") as spinner:
        spinner.bar.refresh()
        assert "left" not in sys.stderr.getvalue()
        spinner.at(1, 4, "sora-20b")
        spinner.bar.refresh()
    shown = sys.stderr.getvalue()
    assert "counting: sora-20b" in shown
    assert "1/4" in shown
    assert "left" in shown
    verbosity.quiet = True
    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress.Spinner("counting") as spinner:
        spinner.at(1, 4)
    assert sys.stderr.getvalue() == ""


@pytest.mark.parametrize(
    ("words", "offered", "not_offered"),
    [
        ("ldt-bench pr", "predict", "list"),
        ("ldt-bench count so", "sora-20b", "tiny"),
        ("ldt-bench count tiny -w tiny-c", "tiny-clip", "image-512"),
        ("ldt-bench run sm", "smoke", "h100"),
        ("ldt-bench doctor --expect h100", "h100-sxm", "a100-80gb"),
        ("ldt-bench run --qui", "--quiet", "--verbose"),
    ],
)
def test_shell_completion_offers_names(words, offered, not_offered):
    env = {
        **os.environ,
        "_LDT_BENCH_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }
    code = "import sys; sys.argv = ['ldt-bench']; from bench.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=env, check=False
    )
    assert offered in done.stdout.split()
    assert not_offered not in done.stdout.split()


def test_a_run_ends_with_its_headline_in_words(measured):
    from bench.report.tables.planning import headline_lines

    assert re.search(
        r"^headline: [\d.,]+ \([\d.,]+ to [\d.,]+\) minutes of video per hour of this CPU, tiny"
        r" tiny-image "
        r"eager-fp32 on cpu \((measured|fitted)(, machine not steady)?\)$",
        measured[1].stdout,
        re.MULTILINE,
    )
    outcomes = {"ok": 1, "unstable": 2}
    assert headline_lines({"headline": None, "headline_missing": "why", "outcomes": outcomes}) == [
        "headline: none: why",
        (
            "warning: 2 of 3 points are unstable: something else is running on this machine; stop"
            " it and measure again before believing these figures"
        ),
    ]
    assert (
        len(
            headline_lines(
                {"headline": None, "headline_missing": "why", "outcomes": {"ok": 2, "unstable": 2}}
            )
        )
        == 1
    )
