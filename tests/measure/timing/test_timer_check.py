"""The check of the harness's clock, on a clock and a call whose seconds are known."""

import json

import pytest
import torch

from bench.measure.timing import check as timer_check
from bench.measure.timing.check import TimerCheck, check_timer
from bench.report.tables.doctor import timer_table
from support.cli import cli

CPU = torch.device("cpu")
CPU_SAYS = "a CPU runs a call as it is made: nothing to hold"


class Off:
    """A clock that reads a share more than passed."""

    def __init__(self, share):
        self.share = share

    def time(self, call):
        call()
        return 0.1 * (1 + self.share)


@pytest.mark.parametrize(
    ("share", "agrees"), [(0.0, True), (0.004, True), (0.01, False), (-0.01, False)]
)
def test_a_clock_that_is_off_is_found(monkeypatch, share, agrees):
    monkeypatch.setattr(timer_check, "_bare_loop", lambda call, device: 0.1)
    called = []
    checked = check_timer(lambda: called.append(1), CPU, Off(share), rounds=8)
    assert checked.agrees is agrees
    assert checked.harness_ratio[0] == pytest.approx(1 + share)
    assert (checked.graph_replay_s, checked.host_bound) == (None, None)
    assert "CPU" in checked.graph_reason
    assert (checked.without_hold_s, checked.without_hold_ratio, checked.hold_reason) == (
        None,
        None,
        CPU_SAYS,
    )
    assert (
        len(called) >= 9 * 2 * timer_check.ROUND_CALLS
    )  # by the clock and by torch.utils.benchmark


@pytest.mark.parametrize(("replay", "host_bound"), [(0.5, True), (0.95, False)])
def test_a_call_that_a_replay_beats_is_bound_by_the_host(replay, host_bound):
    ratio = (1.0, 1.0, 1.0)
    assert (
        TimerCheck(1.0, 1.0, 1.0, ratio, ratio, 6, replay, None, None, None, CPU_SAYS).host_bound
        is host_bound
    )


def test_noise_that_reaches_into_the_tolerance_is_no_disagreement():
    ratio = (1.02, 0.99, 1.05)
    assert TimerCheck(1.0, 1.0, 1.0, ratio, ratio, 6, None, "", None, None, CPU_SAYS).agrees
    assert not TimerCheck(
        1.0, 1.0, 1.0, (1.02, 1.01, 1.05), ratio, 6, None, "", None, None, CPU_SAYS
    ).agrees


def test_the_command_times_a_real_step_three_ways():
    done = cli(
        "doctor",
        "--timer",
        "--model",
        "tiny",
        "--workload",
        "tiny-image",
        "--rounds",
        "6",
        "--device",
        "cpu",
        "--json",
        env={"OMP_NUM_THREADS": "1"},
    )
    document = json.loads(done.stdout)
    assert done.returncode == (0 if document["agrees"] else 1), done.stderr
    assert (
        document["harness_ratio"]["low"]
        <= document["harness_ratio"]["value"]
        <= document["harness_ratio"]["high"]
    )
    assert document["torch_benchmark_s"] > 0
    assert document["hold_reason"] == CPU_SAYS
    assert document["without_hold_s"] is None


def test_the_clock_without_a_hold_is_shown_beside(monkeypatch):
    """40 us of a launch in 100 us of work."""
    monkeypatch.setattr(timer_check, "_bare_loop", lambda call, device: 0.1)
    checked = check_timer(lambda: None, CPU, Off(0.0), rounds=8, unheld=Off(0.4))
    assert checked.without_hold_s == pytest.approx(0.14)
    assert checked.without_hold_ratio[0] == pytest.approx(1.4)
    assert checked.hold_reason is None
    assert checked.agrees
    document = checked.as_dict()
    assert document["without_hold_ratio"]["value"] == pytest.approx(1.4)
    table = timer_table("p", document)
    assert len(table.rows) == 5
    assert "1.4" in table.texts[2][2]


def test_a_call_that_its_host_bounds_is_judged_without_the_hold():
    """Held, it has a head start that a loop of calls has but once."""
    right, off = (1.0, 1.0, 1.0), (0.9, 0.89, 0.91)
    check = TimerCheck(0.9, 1.0, 1.0, off, right, 6, 0.3, None, 1.0, right, None)
    assert (check.host_bound, check.agrees) == (True, True)
    assert not TimerCheck(0.9, 1.0, 1.0, off, right, 6, 1.0, None, 1.0, right, None).agrees
