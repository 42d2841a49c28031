"""Shared fixtures.  The suite here is small enough for a few seconds and still has every stage."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from gpu_processes import pytest_pyfunc_call  # noqa: F401 (each gpu test in its own process)

if "PYTEST_XDIST_WORKER" in os.environ:  # a process for each core: more threads would fight
    os.environ.setdefault("OMP_NUM_THREADS", "1")
PATIENCE = float(os.environ.get("LDT_BENCH_TEST_PATIENCE", "1"))
"""So many times as long is waited for a process, on a machine that others use too; no test asks how
long one took."""
ROOT = Path(__file__).resolve().parents[1]
GOLDEN = Path(__file__).parent / "golden"

MICRO_SUITE = """
description: a few points in a few seconds
ceilings: true
sampling: {target_relative_half_width: 0.5, min_samples: 3, max_samples: 6, max_s: 0.2}
point_timeout_s: PATIENT
points:
  - {model: tiny, workload: tiny-image, recipe: eager-fp32, stages: [denoise_step, vae_decode, vae_encode, text_encode]}
  - {model: tiny, workload: tiny-clip, recipe: eager-fp32, stages: [denoise_step, vae_decode]}
  - {model: tiny, workload: tiny-image, recipe: eager-fp32, set: {denoiser.depth: 2}}
  - {model: tiny, workload: tiny-clip, recipe: eager-fp32, set: {denoiser.depth: 2}}
  - {model: tiny-factorised, workload: tiny-clip, recipe: eager-fp32}
headline: {model: tiny, workload: tiny-image, recipe: eager-fp32}
""".replace("PATIENT", f"{60 * PATIENCE:g}")  # noqa: E501


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


def cli(
    *args: str, cwd: Path | None = None, env: dict[str, str] | None = None, timeout: float = 120
) -> subprocess.CompletedProcess:
    """Run ldt-bench in a process of its own, as a user would."""
    return subprocess.run(
        [sys.executable, "-m", "bench.cli", *args],
        capture_output=True,
        text=True,
        cwd=cwd or ROOT,
        env={**os.environ, **(env or {})},
        timeout=PATIENCE * timeout,
        check=False,
    )


def variant(tmp_path: Path, name: str = "variant", **change) -> Path:
    """The micro suite without ceilings and with some of its fields otherwise."""
    path = tmp_path / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(MICRO_SUITE), "ceilings": False, **change}))
    return path


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
    from fake_nvml import FakeNvml

    def install(**broken) -> FakeNvml:
        fake = FakeNvml(**broken)
        monkeypatch.setitem(sys.modules, "pynvml", fake)
        return fake

    return install
