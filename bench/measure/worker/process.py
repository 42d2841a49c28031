"""The suite's side of the worker process: start it, hand it a job, hear its rounds, outlive its
death.  No torch."""

import contextlib
import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.core.errors import EnvironmentFault, UserError
from bench.core.verbosity import verbosity
from bench.measure.group.marks import laggards, wait_until_gone
from bench.measure.group.nodes import Nodes
from bench.measure.worker.parent import child_environment
from bench.measure.worker.protocol import Answer, Request, ranks_of, wants_fresh
from bench.results.environment import Environment, cards_in
from bench.results.records import Correctness

START_TIMEOUT_S = 300.0  # importing torch from a cold, slow disk takes minutes


class JobFailed(Exception):
    """A job ended otherwise than ok."""

    def __init__(self, outcome: str, reason: str, correctness: Correctness | None = None):
        """correctness: what was read of it, where it computes wrong numbers."""
        super().__init__(reason)
        self.outcome, self.reason, self.correctness = outcome, reason, correctness


class Worker:
    """One persistent worker; started when first needed and again after it died.  Use as a context
    manager.

    What it prints (tracebacks, libraries' chatter) goes to a file without a name, for `chatter` to
    read; with LDT_BENCH_DEBUG set, or --verbose, to the terminal."""

    def __init__(
        self,
        device: str | None,
        ranks: int = 1,
        threads: int | None = None,
        nodes: Nodes | None = None,
    ):
        """ranks: processes that measure together, started for one job.  threads: of each, on a
        CPU.  nodes: that groups may span."""
        self.device, self.ranks, self.threads, self.nodes = device, ranks, threads, nodes
        self._log = None if verbosity.debug else tempfile.TemporaryFile()  # noqa: SIM115 (closed in __exit__)
        self._folder = tempfile.TemporaryDirectory() if ranks > 1 else None
        self._log_read = 0
        self._process: subprocess.Popen | None = None
        self._buffer = b""
        self._environment: Environment | None = None
        self._measured = False  # did this process run anything but counts?

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()
        if self._log is not None:
            self._log.close()
        if self._folder is not None:
            self._folder.cleanup()

    def chatter(self) -> bytes:
        """What the worker printed since this was last called."""
        if self._log is None:
            return b""
        text = os.pread(
            self._log.fileno(), 10_000_000, self._log_read
        )  # the worker's own place is at the end
        self._log_read += len(text)
        return text

    @property
    def environment(self) -> Environment:
        """Raises EnvironmentFault where the device cannot be had."""
        if self._environment is None:
            self._start()
        assert self._environment is not None
        return self._environment

    def run(
        self,
        request: Request[Answer],
        timeout_s: float,
        on_round: Callable[[str, list[float]], None] = lambda stage, samples: None,
    ) -> Answer:
        """Run one job.  Raises JobFailed with its outcome: timeout, oom, error,
        skipped_unsupported.

        One that `wants_fresh` has a process for itself, as far as what was measured goes; one of
        several ranks has a group of processes."""
        ranks = ranks_of(request)
        if ranks > 1 and self.ranks == 1:
            return self._run_in_group(request, ranks, timeout_s, on_round)
        alone = wants_fresh(request)
        if alone and self._measured:
            self.kill()
        if self._process is None or self._process.poll() is not None:
            self._start()
        self._send(request)
        deadline = time.monotonic() + timeout_s
        while True:
            event = self._read(deadline)
            if event is None:
                reason = f"stopped after {timeout_s:.0f} s{self._who()}"
                self.kill()
                raise JobFailed("timeout", reason)
            kind = event.pop("event")
            if kind == "round":
                on_round(event["stage"], event["samples_s"])
                continue
            # What is skipped is so before anything is built.
            began = event.get("outcome") != "skipped_unsupported"
            self._measured = self._measured or (began and request.measures)
            if event.pop("ends", False) or (alone and began):
                self.kill()  # it is going, and would take the next job with it
            if kind == "done":
                return request.reply.model_validate(event)
            assert kind == "failed", f"worker sent {kind!r}"
            read = event.get("correctness")
            correctness = Correctness.model_validate(read) if read else None
            raise JobFailed(event["outcome"], event["reason"], correctness)

    def _run_in_group(
        self,
        request: Request[Answer],
        ranks: int,
        timeout_s: float,
        on_round: Callable[[str, list[float]], None],
    ) -> Answer:
        """By a fresh group; this worker's own process is let go, so that it holds no memory.  Its
        environment is read first, so that no process starts beside the ranks."""
        assert self.environment
        self.kill()
        with Worker(self.device, ranks, self.threads, self.nodes) as group:
            try:
                return group.run(request, timeout_s, on_round)
            except JobFailed:
                there = self.nodes.failure() if self.nodes is not None else None
                if there is None:
                    raise
                raise JobFailed(*there) from None  # what failed here did so for want of it
            except UserError as error:
                raise JobFailed("skipped_unsupported", str(error)) from None
            finally:
                self._keep(group.chatter())

    def _keep(self, chatter: bytes) -> None:
        """What a group printed, among what this worker did."""
        if self._log is not None:
            self._log.write(chatter)
            self._log.flush()

    def _who(self) -> str:
        """Which rank a hanging group waited for."""
        return f": {laggards(Path(self._folder.name), self._ranks_here)}" if self._folder else ""

    def nodes_of(self, ranks: int) -> int:
        """That a group of so many ranks fills."""
        return 1 if self.nodes is None else self.nodes.spanned(ranks)

    @property
    def _ranks_here(self) -> int:
        """Of a group, on this node."""
        return self.ranks if self.nodes is None else min(self.ranks, self.nodes.per_node)

    def _send(self, request: Request) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        line = json.dumps(request.model_dump(mode="json"))
        # A worker that died just now says so in what is read next.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._events.close()
            self._process = None
            if self._folder is not None:  # they die with the launcher, and hold memory until then
                wait_until_gone(Path(self._folder.name), self._ranks_here)
                if self.nodes is not None:
                    self.nodes.stop()
        self._measured = False

    def _start(self) -> None:
        self.kill()
        self._spawn()
        if self.ranks > 1:
            return self._wait_for_ranks()
        try:
            hello = self._read(time.monotonic() + START_TIMEOUT_S)
        except JobFailed as failure:
            said = self.chatter().decode(errors="replace").strip().splitlines()
            last = said[-1] if said else "it said nothing"
            raise EnvironmentFault(
                f"the measuring process did not start: {failure.reason}; {last}"
            ) from None
        if hello is None:
            self.kill()
            raise EnvironmentFault(
                f"the measuring process did not start within {START_TIMEOUT_S:.0f} s"
            )
        if hello["event"] == "failed":
            self.kill()
            raise EnvironmentFault(hello["reason"])
        environment = Environment.model_validate(hello["environment"])
        self._check_same(environment)
        self._environment = environment

    def _wait_for_ranks(self) -> None:
        """Until rank 0 says that all have joined.  Raises JobFailed: a group that cannot start
        costs its point alone."""
        hello = self._read(time.monotonic() + START_TIMEOUT_S)
        if hello is None:
            reason = f"the group did not start within {START_TIMEOUT_S:.0f} s{self._who()}"
            self.kill()
            raise JobFailed("timeout", reason)
        if hello["event"] == "failed":
            self.kill()
            raise JobFailed(hello["outcome"], hello["reason"])

    def _spawn(self) -> None:
        read_fd, write_fd = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-P", *self._module(), "--events-fd", str(write_fd)],
            stdin=subprocess.PIPE,
            stdout=sys.stderr if self._log is None else self._log,
            stderr=self._log,
            pass_fds=[write_fd],
            start_new_session=True,  # Ctrl-C is the parent's to handle
            env=child_environment() | _only_card(self.device),
        )
        os.close(write_fd)
        self._events = os.fdopen(read_fd, "rb", buffering=0)
        self._buffer = b""

    def _module(self) -> list[str]:
        """What is started: the worker, or the launcher of a group."""
        how = ["--device", self.device.partition(":")[0]] if self.device else []
        how += ["--threads", str(self.threads)] if self.threads else []
        if self._folder is None:
            return ["-m", "bench.measure.worker.main", *how]
        group = ["--ranks", str(self.ranks)]
        if self.nodes is not None:
            group = self.nodes.start(self.ranks, how)
        folder = ["--folder", self._folder.name]
        return ["-m", "bench.measure.group.launch", *group, *folder, *how]

    def _check_same(self, environment: Environment) -> None:
        """Raises EnvironmentFault where a process that was started again is elsewhere."""
        # Only the code may differ: a checkout that is edited meanwhile costs no measurement, and
        # each record says its own.
        differences = self._environment.differences(environment) if self._environment else []
        if self._environment and (cards := cards_in([self._environment, environment])):
            differences.append(
                cards
            )  # resuming there is another matter: then samples are not continued
        if any(not difference.startswith("code_version") for difference in differences):
            self.kill()
            raise EnvironmentFault(
                f"the measuring process came back otherwise: {'; '.join(differences)}; what was "
                "measured is kept, and --resume says what can go on"
            )

    def _read(self, deadline: float) -> dict[str, Any] | None:
        """The next event; None at the deadline.  Raises JobFailed where the worker died."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._events, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                remaining = deadline - time.monotonic()
                if remaining <= 0 or not selector.select(remaining):
                    return None
                chunk = self._events.read(2**16)
                if not chunk:
                    raise JobFailed(*self._death())
                self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return json.loads(line)

    def _death(self) -> tuple[str, str]:
        assert self._process is not None
        code = self._process.wait()
        if code == -9:  # nobody here sent it: on Linux that is the kernel's out-of-memory killer
            killed = "the measuring process was killed (signal 9), most likely for want of memory"
            return "oom", killed
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return "error", f"the measuring process died ({how})"


def _only_card(device: str | None) -> dict[str, str]:
    """What hides the other cards from a process for "cuda:N"."""
    _, colon, index = (device or "").partition(":")
    if not colon:
        return {}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else []
    if names and int(index) >= len(names):
        raise EnvironmentFault(f"--device {device}: CUDA_VISIBLE_DEVICES names {len(names)}")
    return {"CUDA_VISIBLE_DEVICES": names[int(index)] if names else index}
