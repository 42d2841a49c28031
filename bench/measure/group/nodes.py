"""Groups over several nodes: the run leads, and on each further node `ldt-bench follow` starts that
node's ranks when it is told to.  No torch.

One connection a follower, JSON lines: start {launcher's arguments}, stop, and back ended {outcome,
reason}.  A connection that closes ends the other side, so that nothing is left behind.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.core.errors import EnvironmentFault, UserError
from bench.measure.group.marks import wait_until_gone
from bench.measure.worker.parent import child_environment

ARRIVE_S = 600.0  # the scheduler starts nodes minutes apart
RETRY_S = 1.0
TELLS_S = 1.0


def parse_address(text: str) -> tuple[str, int]:
    """ "node0:29500" -> ("node0", 29500).  Raises UserError."""
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port) < 2**16):
        raise UserError(f"--rendezvous {text!r}: expected HOST:PORT, e.g. node0:29500")
    return host, int(port)


@dataclass
class Nodes:
    """The run's side.  Use as a context manager: leaving it sends the followers home."""

    address: str
    """HOST:PORT of this node, as the others reach it."""
    nodes: int
    per_node: int
    """Ranks of each."""
    _followers: list["_Follower"] = field(default_factory=list)

    def __enter__(self) -> "Nodes":
        """Wait for every follower.  Raises EnvironmentFault where one does not come."""
        host, port = parse_address(self.address)
        try:
            listener = socket.create_server((host, port))
        except OSError as error:
            raise EnvironmentFault(f"--rendezvous {self.address}: {error.strerror}") from None
        listener.settimeout(ARRIVE_S)
        with listener:
            while len(self._followers) < self.nodes - 1:
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    came = len(self._followers)
                    raise EnvironmentFault(
                        f"--rendezvous {self.address}: {came} of {self.nodes - 1} followers came"
                        f" within {ARRIVE_S:.0f} s; each further node runs `ldt-bench follow"
                        f" --rendezvous {self.address}`"
                    ) from None
                self._followers.append(_Follower(connection, len(self._followers) + 1))
        return self

    def __exit__(self, *exc: object) -> None:
        for follower in self._followers:
            follower.close()

    def spanned(self, ranks: int) -> int:
        """Nodes that so many ranks fill, the first ones first.  Raises UserError for a part of
        one."""
        if ranks <= self.per_node:
            return 1
        if ranks % self.per_node or ranks > self.nodes * self.per_node:
            raise UserError(
                f"parallel: {ranks} ranks do not fill whole nodes of {self.per_node}, at most"
                f" {self.nodes}"
            )
        return ranks // self.per_node

    def start(self, ranks: int, how: list[str]) -> list[str]:
        """Start the other nodes' ranks -> the launcher's further arguments on this node."""
        spanned = self.spanned(ranks)
        if spanned == 1:
            return ["--ranks", str(ranks)]
        shared = ["--ranks", str(self.per_node), "--nodes", str(spanned)]
        shared += ["--endpoint", f"{parse_address(self.address)[0]}:{_free_port()}"]
        for follower in self._followers[: spanned - 1]:
            follower.tell({"start": [*shared, "--node", str(follower.node), *how]})
        return [*shared, "--node", "0"]

    def stop(self) -> None:
        """End the other nodes' ranks, and wait until they are gone."""
        for follower in self._followers:
            follower.tell({"stop": True})
            follower.wait_until_stopped()

    def failure(self) -> tuple[str, str] | None:
        """(outcome, reason) that a follower gave of its ranks since the last start, or gives soon:
        ranks here may fail first, for want of theirs."""
        time.sleep(TELLS_S)
        found = [f.failure for f in self._followers if f.failure is not None]
        return found[0] if found else None


class _Follower:
    """One connection of the run to a follower."""

    def __init__(self, connection: socket.socket, node: int):
        self.connection, self.node = connection, node
        self.failure: tuple[str, str] | None = None
        self._stopped = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def tell(self, said: dict[str, Any]) -> None:
        """Raises EnvironmentFault where the follower is gone."""
        if "start" in said:
            self.failure = None
        self._stopped.clear()
        try:
            self.connection.sendall(json.dumps(said).encode() + b"\n")
        except OSError:
            raise EnvironmentFault(f"node {self.node} is gone") from None

    def close(self) -> None:
        """The thread that listens holds the socket open, so it is shut down first."""
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()

    def wait_until_stopped(self) -> None:
        self._stopped.wait(60.0)

    def _listen(self) -> None:
        with contextlib.suppress(OSError, ValueError), self.connection.makefile() as lines:
            for line in lines:
                said = json.loads(line)
                if "ended" in said:
                    outcome, reason = said["ended"]
                    self.failure = outcome, f"node {self.node}: {reason}"
                if "stopped" in said:
                    self._stopped.set()
        self._stopped.set()


def _free_port() -> int:
    with socket.create_server(("", 0)) as probe:
        return probe.getsockname()[1]


def follow(address: str, patience_s: float) -> int:
    """Start this node's ranks whenever the run says so -> groups that were started.

    Raises EnvironmentFault where no run listens within the patience."""
    connection = _connected(address, patience_s)
    started, group = 0, None
    with connection, connection.makefile() as lines:
        try:
            for line in lines:
                said = json.loads(line)
                if group is not None:
                    group.kill()
                    group = None
                if "start" in said:
                    group = _Group(said["start"], connection)
                    started += 1
                if "stop" in said:
                    connection.sendall(b'{"stopped": true}\n')
        except OSError:
            pass  # the run is gone: so are its ranks here
        finally:
            if group is not None:
                group.kill()
    return started


def _connected(address: str, patience_s: float) -> socket.socket:
    host, port = parse_address(address)
    deadline = time.monotonic() + patience_s
    while True:
        try:
            connection = socket.create_connection((host, port), timeout=10.0)
            connection.settimeout(None)
            return connection
        except OSError as error:
            if time.monotonic() > deadline:
                raise EnvironmentFault(
                    f"--rendezvous {address}: no run listens there ({error.strerror or error})"
                ) from None
            time.sleep(RETRY_S)


class _Group:
    """The ranks of this node in one group."""

    def __init__(self, arguments: list[str], connection: socket.socket):
        self._folder = tempfile.TemporaryDirectory()
        self._connection, self._killed = connection, False
        self._ranks = int(arguments[arguments.index("--ranks") + 1])
        read_fd, write_fd = os.pipe()
        events = ["--events-fd", str(write_fd), "--folder", self._folder.name]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "bench.measure.group.launch", *arguments, *events],
            stdin=subprocess.DEVNULL,
            pass_fds=[write_fd],
            start_new_session=True,
            env=child_environment(),
        )
        os.close(write_fd)
        self._events = os.fdopen(read_fd)
        threading.Thread(target=self._tell_how_it_ended, daemon=True).start()

    def _tell_how_it_ended(self) -> None:
        """The launcher's one line, where its ranks failed."""
        line = self._events.readline()
        if self._killed or not line:
            return
        failed = json.loads(line)
        said = {"ended": [failed["outcome"], failed["reason"]]}
        with contextlib.suppress(OSError):
            self._connection.sendall(json.dumps(said).encode() + b"\n")

    def kill(self) -> None:
        """Its ranks die with the launcher."""
        self._killed = True
        self._process.kill()
        self._process.wait()
        wait_until_gone(Path(self._folder.name), self._ranks)
        self._folder.cleanup()
