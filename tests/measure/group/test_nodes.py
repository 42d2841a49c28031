"""Groups over two nodes, both of them on this machine."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.core.errors import EnvironmentFault, UserError
from bench.measure.group import nodes
from bench.measure.group.nodes import Nodes, follow, parse_address
from bench.measure.worker.parent import child_environment
from bench.measure.worker.process import JobFailed, Worker
from support.measure.groups import LONG, ranks, request


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def follower(monkeypatch):
    """Starts `ldt-bench follow`."""
    monkeypatch.setenv("LDT_BENCH_TEST_GROUP", str(os.getpid()))
    started = []

    def start(address: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "bench.cli", "follow", "--rendezvous", address]
        pipe = subprocess.PIPE
        environment = child_environment()
        process = subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_group_spans_two_nodes_and_a_dead_rank_of_the_other_is_named(follower):
    address = free_address()
    other = follower(address)
    with Nodes(address, 2, per_node=1) as both, Worker("cpu", threads=1, nodes=both) as worker:
        reply = worker.run(request(ulysses=2), 120)
        assert reply.group.nodes == 2
        assert [reading.rank for reading in reply.group.ranks] == [0, 1]

        def kill(stage: str, samples: list[float]) -> None:
            if 1 in (there := ranks()):
                os.kill(there[1], signal.SIGKILL)

        with pytest.raises(JobFailed, match=r"node 1: rank 0 of 1 was killed") as failed:
            worker.run(request(LONG, ulysses=2), 120, kill)
        assert failed.value.outcome == "oom"
        assert not ranks()
        with pytest.raises(JobFailed, match="4 ranks do not fill whole nodes of 1") as failed:
            worker.run(request(ulysses=4), 120)
        assert failed.value.outcome == "skipped_unsupported"
    said, _ = other.communicate(timeout=30)
    assert said == "the run is over; 2 groups had ranks here\n"
    assert other.returncode == 0


def test_fewer_ranks_than_a_node_has_stay_on_the_first():
    both = Nodes("localhost:1", 2, per_node=4)
    assert both.start(2, []) == ["--ranks", "2"]
    assert (both.spanned(4), both.spanned(8)) == (1, 2)
    for ranks_asked in (6, 12):
        with pytest.raises(UserError, match="do not fill whole nodes of 4, at most 2"):
            both.spanned(ranks_asked)


def test_a_follower_that_does_not_come_is_said(monkeypatch):
    monkeypatch.setattr(nodes, "ARRIVE_S", 0.1)
    with (
        pytest.raises(EnvironmentFault, match="0 of 1 followers came"),
        Nodes(free_address(), 2, per_node=1),
    ):
        pass


def test_a_follower_without_a_run_gives_up():
    started = time.monotonic()
    with pytest.raises(EnvironmentFault, match="no run listens there"):
        follow(free_address(), 0.1)
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("text", ["", "node0", "node0:", ":1", "node0:0", "node0:99999", "n:x"])
def test_an_address_that_is_none(text):
    with pytest.raises(UserError, match="expected HOST:PORT"):
        parse_address(text)


def test_the_templates_name_commands_and_options_that_there_are():
    from typer.testing import CliRunner

    from bench.cli import app

    helps = {
        name: CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "200"}).output
        for name in ("run", "follow")
    }
    for template in ("slurm_nodes.sh", "skypilot_nodes.yaml"):
        text = (Path(__file__).parents[3] / "deploy" / template).read_text()
        for option in ("--gpus", "--nodes", "--rendezvous", "--budget"):
            assert option in text
            assert option in helps["run"]
        assert "follow --rendezvous" in text
        assert "--rendezvous" in helps["follow"]
