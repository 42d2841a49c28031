"""The GPU tests' processes, by a file of tests that break theirs: each costs itself alone."""

import os
import re
import subprocess
import sys

from support.gpu_processes import run_alone
from support.paths import ROOT

POISONED = """
import os
import pytest

pytestmark = pytest.mark.gpu
STATE = {"poisoned": False}


def test_dies():
    os._exit(1)

def test_is_killed():
    os.kill(os.getpid(), 9)

def test_poisons_its_process():
    STATE["poisoned"] = True
    raise RuntimeError("CUDA error: an illegal memory access was encountered")

@pytest.mark.parametrize("case", ["one of two", "a/b[c]"])
def test_still_passes(case, tmp_path):
    assert not STATE["poisoned"]
    (tmp_path / "out").write_text(str(os.getpid()))

def test_says_why_it_is_skipped():
    pytest.skip("needs compute capability 8.9; this device has 8.0")
"""


def test_one_poisoned_process_fails_one_test(tmp_path):
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu\naddopts = -m 'not gpu'\n")
    (tmp_path / "test_poisoned.py").write_text(POISONED)
    env = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    env.pop("LDT_BENCH_GPU_CHILD", None)
    env["PYTEST_PLUGINS"] = "support.gpu_processes"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "gpu", "-rA", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    said = re.findall(
        r"^(PASSED|FAILED) test_poisoned.py::(\S+?)(?: - (.*))?$",
        done.stdout.replace("one of two", "one"),
        flags=re.MULTILINE,
    )
    outcomes = {name: outcome for outcome, name, _ in said}
    assert outcomes == {
        "test_dies": "FAILED",
        "test_is_killed": "FAILED",
        "test_poisons_its_process": "FAILED",
        "test_still_passes[one]": "PASSED",
        "test_still_passes[a/b[c]]": "PASSED",
    }, done.stdout
    assert "its process ended with exit code 1" in done.stdout
    assert "its process ended with signal 9" in done.stdout
    assert "an illegal memory access was encountered" in done.stdout  # what it printed is shown
    assert re.search(
        r"SKIPPED \[1\] .*needs compute capability 8.9; this device has 8.0", done.stdout
    )


def test_a_process_that_hangs_is_stopped_with_what_it_started(tmp_path):
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu\n")
    (tmp_path / "test_hanging.py").write_text(
        "import subprocess, pytest\n\n\n@pytest.mark.gpu\ndef test_hangs():\n   "
        " subprocess.run(['sleep', '600'])\n"
    )
    assert run_alone("test_hanging.py::test_hangs", tmp_path, 5.0)[0] is None
