"""What the tool of a hundred kills promises, by a few of them."""

import json
import subprocess
import sys

import pytest

from support.paths import ROOT

FAULTS = ("lost", "left out", "repeated", "invalid", "processes_left")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_six_kills_and_a_stop():
    done = subprocess.run(
        [sys.executable, "tests/tools/kill_hundred.py", "--kills", "6", "--stops", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    modes = json.loads(done.stdout.splitlines()[-1])
    assert {name: mode["sent"] for name, mode in modes.items() if name != "stop"} == {
        "worker": 2,
        "parent": 2,
        "both": 2,
    }
    for mode in modes.values():
        assert [mode[fault] for fault in FAULTS] == [0] * len(FAULTS)
    stop = modes["stop"]
    assert stop["called_stalled"] + stop["called_unstable"] == stop["stops_in_samples"] >= 1
