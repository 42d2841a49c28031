"""Fuzzed options and words of the command line, in this process."""

import contextlib
import functools
import io
import json
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import typer
from hypothesis import strategies as st

from bench.cli import app, main
from bench.core.load import load_point, parse_overrides
from support.fuzz.files import foreseen
from support.fuzz.values import PATHS, SCALARS, TEXT

SETTINGS = st.tuples(PATHS, SCALARS)


def setting(folder: Path, case: tuple) -> None:
    """--set PATH=VALUE."""
    foreseen(_set, *case)


def _set(path: str, value: object) -> None:
    overrides = parse_overrides([f"{path}={json.dumps(value, default=str)}"])
    load_point("tiny", "tiny-clip", "eager-fp32", overrides)


READING = {
    "list": "models",
    "count": "tiny -w tiny-clip",
    "predict": "tiny -w tiny-clip --gpu h100-sxm",
    "analytic": "",
    "claims": "",
    "fleet": "startup -m wan2.1-t2v-1.3b",
    "cards": ".",
    "merge": ".",
    "export": ". --to csv",
    "report": ".",
    "verify": ".",
    "calibrate": ".",
}
"""Commands that measure nothing and start nothing, with words that they take."""
MANY_OPTIONS = ("count", "predict") * 4
WRITE = {"--out", "--figures"}
"""Options that name a file: a fuzzed one could be any."""
WORDS = st.one_of(
    TEXT.filter(lambda text: "/" not in text),
    SCALARS.map(str).filter(lambda text: "/" not in text),
    st.sampled_from(["tiny", "tiny-clip", "eager", "eager-bf16", "h100-sxm", "uploads", "models"]),
    st.sampled_from(["auto", "ulysses=2", "cfg=2,ulysses=4", "latency", "cost", "csv", "latex"]),
    st.sampled_from(["width=128", "workload.frames=17", "recipe.dtype=fp32", ".", "", "--"]),
    st.sampled_from(["2", "0", "-1", "nan", "inf", "1e400", "5m", "3x", "--help"]),
)


@functools.cache
def _parameters() -> dict[str, list[tuple[str, bool]]]:
    """Command -> (its option, whether that is a flag)."""
    known = typer.main.get_command(app).commands
    return {
        name: [
            (parameter.opts[0], bool(getattr(parameter, "is_flag", False)))
            for parameter in known[name].params
            if parameter.opts[0].startswith("--") and parameter.opts[0] not in WRITE
        ]
        for name in READING
    }


@st.composite
def lines(draw) -> list[str]:
    """A command, words that it takes or any, and some of its options."""
    command = draw(st.sampled_from([*MANY_OPTIONS, *READING]))
    good = st.just(READING[command].split())
    words = [command, *draw(st.one_of(good, good, st.lists(WORDS, max_size=2)))]
    for option, is_flag in draw(st.lists(st.sampled_from(_parameters()[command]), max_size=4)):
        words += [option] if is_flag else [option, draw(WORDS)]
    return words


def line(folder: Path, words: list[str]) -> None:
    """An exit code, and where it is a mistake a line that says which."""
    with _as_a_process(folder, words) as said:
        try:
            main()
        except SystemExit as left:
            code = left.code
        sys.stderr.flush()
        text = said.getvalue().decode()
    assert code in (0, 1, 2, 3), words
    assert code < 2 or "error: " in text, words
    assert "Traceback" not in text, words


@contextlib.contextmanager
def _as_a_process(folder: Path, words: list[str]) -> Iterator[io.BytesIO]:
    """argv, streams, signals and warnings as a process has them -> its stderr."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    argv, show, said = sys.argv, warnings.showwarning, io.BytesIO()
    sys.argv = ["ldt-bench", *words]
    try:
        with (
            contextlib.chdir(folder),
            contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO(), "utf-8")),
            contextlib.redirect_stderr(io.TextIOWrapper(said, "utf-8", write_through=True)),
        ):
            yield said
    finally:
        sys.argv, warnings.showwarning = argv, show
        for number, handler in before.items():
            signal.signal(number, handler)
