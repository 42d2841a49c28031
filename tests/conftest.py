"""Shared fixtures.  The suite here is small enough for a few seconds and still has every stage."""

import os
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

    torch.manual_seed(0)


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
def measured(tmp_path_factory, micro_suite) -> tuple[Path, subprocess.CompletedProcess]:
    """A result directory made by one real run of the micro suite, and what that run printed."""
    root = tmp_path_factory.mktemp("results")
    done = cli("run", str(micro_suite), "--device", "cpu", "--out", str(root))
    assert done.returncode == 0, done.stderr
    (directory,) = (root / "cpu").iterdir()
    return directory, done


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


@pytest.fixture
def nvml(monkeypatch):
    """nvml(function=error, ...) puts a fake in the place of pynvml -> it."""
    from support.fake_nvml import FakeNvml

    def install(**broken) -> FakeNvml:
        fake = FakeNvml(**broken)
        monkeypatch.setitem(sys.modules, "pynvml", fake)
        return fake

    return install
