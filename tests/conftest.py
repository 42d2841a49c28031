"""Shared fixtures.  The suite here is small enough for a few seconds and still has every stage."""

import fcntl
import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.cli import MICRO_SUITE, cli

# Each gpu test in a process of its own.
from support.gpu_processes import pytest_pyfunc_call  # noqa: F401

if "PYTEST_XDIST_WORKER" in os.environ:  # a process for each core: more threads would fight
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config) -> int:
    """As many as there are cores, at most 8; none where GPU tests are asked for, which share a
    card."""
    asked = config.option.markexpr or ""
    on_gpu = "gpu" in asked and "not gpu" not in asked
    return 0 if on_gpu else min(8, os.cpu_count() or 1)


def pytest_collection_modifyitems(config, items):
    """GPU tests are skipped, not failed, where they are asked for and no GPU is."""
    import torch

    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="no CUDA device here"))


@pytest.fixture(autouse=True)
def _seeded():
    """Random inputs that are the same in every run."""
    import torch

    # torch.manual_seed takes 4 ms a test to note the seed for kinds of device that are not here.
    seed = torch.manual_seed if torch.cuda.is_available() else torch.default_generator.manual_seed
    seed(0)


@pytest.fixture
def one_thread():
    """Small operators: OpenMP's spinning threads make a busy machine many times slower.  And sums
    keep their order."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def micro_suite(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("suite") / "micro.yaml"
    path.write_text(MICRO_SUITE)
    return path


@pytest.fixture(scope="session")
def _measured_once(tmp_path_factory, micro_suite) -> Path:
    """One real run of the micro suite and what it printed, made by the first of the test processes
    that asks; the others wait for it."""
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "measured"
    root.mkdir(exist_ok=True)
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (root / "printed.json").exists():
            done = cli("run", str(micro_suite), "--device", "cpu", "--out", str(root))
            assert done.returncode == 0, done.stderr
            printed = {"stdout": done.stdout, "stderr": done.stderr}
            (root / "printed.json").write_text(json.dumps(printed))
    return root


@pytest.fixture(scope="session")
def measured(tmp_path_factory, _measured_once) -> tuple[Path, subprocess.CompletedProcess]:
    """A result directory made by one real run of the micro suite, and what that run printed.  Each
    test process has its own copy."""
    (made,) = (_measured_once / "cpu").iterdir()
    directory = tmp_path_factory.mktemp("results") / "cpu" / made.name
    shutil.copytree(made, directory)
    printed = (_measured_once / "printed.json").read_text().replace(str(made), str(directory))
    return directory, subprocess.CompletedProcess("run", 0, **json.loads(printed))


@pytest.fixture
def here(monkeypatch, capsys):
    """here(*args) runs ldt-bench in this process -> (exit code, stdout, stderr); a traceback fails
    the test."""
    import signal
    import warnings

    from bench.cli import main

    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.delenv("LDT_BENCH_DEBUG", raising=False)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}

    def call(*args: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ldt-bench", *args])
        with pytest.raises(SystemExit) as left:
            main()
        return left.value.code, *capsys.readouterr()

    yield call
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _few_draws(request, monkeypatch):
    """Intervals from a fifth of the draws, in this process: a fit with all takes three seconds.  A
    test of the intervals themselves asks for `all_draws`."""
    if "all_draws" in request.fixturenames:
        return
    fit = sys.modules.get("bench.calibrate.fit_pool")
    if fit is not None:
        monkeypatch.setattr(fit, "bootstrap", functools.partial(fit.bootstrap, draws=20))


@pytest.fixture
def all_draws():
    """Intervals as users have them."""


@pytest.fixture
def only_svg(monkeypatch):
    """Reports of this process draw each figure in one format: a PDF takes as long as the rest."""
    for name in ("FORMATS", "FOR_PRINT"):
        monkeypatch.setattr(f"bench.report.write.{name}", ("svg",))


@pytest.fixture
def unreported(here, monkeypatch):
    """`here`, for runs whose records are looked at and whose calibration and report are not."""
    from bench.core.errors import UserError

    def calibrate(directory):
        raise UserError("not asked for")

    monkeypatch.setattr("bench.calibrate.make.calibrate", calibrate)
    monkeypatch.setattr(
        "bench.report.write.write_report", lambda directory, for_print: directory / "report.md"
    )
    return here


@pytest.fixture
def nvml(monkeypatch):
    """nvml(function=error, ...) puts a fake in the place of pynvml -> it."""
    from support.measure.fake_nvml import FakeNvml

    def install(**broken) -> FakeNvml:
        fake = FakeNvml(**broken)
        monkeypatch.setitem(sys.modules, "pynvml", fake)
        return fake

    return install


@pytest.fixture(scope="module")
def chromium():
    """A real browser; the test skips where none can be had."""
    from support.browser import launched

    yield from launched()
