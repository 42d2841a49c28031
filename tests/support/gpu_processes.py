"""A pytest plugin: each test that is marked `gpu` runs in a process of its own.

A kernel that reads where it may not breaks the CUDA context of its process, and everything after it
in that process fails too.  So each test gets a fresh one, and what it printed is shown where it
fails.  A process that hangs is stopped.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

CHILD = "LDT_BENCH_GPU_CHILD"  # set in the processes that run one test
TIMEOUT = "LDT_BENCH_GPU_TEST_S"
TIMEOUT_S = 900.0  # compiling a recipe with autotuning takes minutes
SHOWN = 12_000  # last characters of what a failed process printed


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a gpu test elsewhere, and be done with it; others as ever."""
    if "gpu" not in pyfuncitem.keywords or os.environ.get(CHILD):
        return None
    limit = float(os.environ.get(TIMEOUT, TIMEOUT_S))
    code, said = run_alone(pyfuncitem.nodeid, pyfuncitem.config.rootpath, limit)
    if code is None:
        pytest.fail(f"stopped after {limit:.0f} s\n{said[-SHOWN:]}", pytrace=False)
    if code != 0:
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        pytest.fail(f"its process ended with {how}\n{said[-SHOWN:]}", pytrace=False)
    skipped = re.search(r"^SKIPPED \[\d+\] [^ ]+: (.*)$", said, flags=re.MULTILINE)
    if skipped:
        pytest.skip(skipped[1])
    return True


def run_alone(nodeid: str, root: Path, limit_s: float) -> tuple[int | None, str]:
    """(exit code, output) of one test in a process of its own; None where it was stopped."""
    command = [sys.executable, "-m", "pytest", nodeid, "-m", "gpu", "-rs", "-p", "no:cacheprovider"]
    with tempfile.TemporaryFile(
        "w+", errors="replace"
    ) as output:  # a pipe would be held open by its own processes
        process = subprocess.Popen(
            command,
            cwd=root,
            env={**os.environ, CHILD: "1"},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # and what it started
            process.wait()
        output.seek(0)
        return code, output.read()
