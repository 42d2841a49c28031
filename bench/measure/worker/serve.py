"""The worker's loop: a request, rounds as they are measured, and how it ended.

Events: hello {environment}; round {stage, samples_s}; done {ends, and the reply's fields};
failed {outcome, reason, ends, correctness}.  With `ends` the process is going, since its CUDA
context may be poisoned.
"""

import json
import traceback
from dataclasses import dataclass
from typing import Any, TextIO

import torch

from bench.core.errors import EnvironmentFault
from bench.measure.attention.correctness import WrongNumbers
from bench.measure.device.environment import choose_device, describe
from bench.measure.probes.sentinel import Sentinel
from bench.measure.timing.clock import Clock, clock_for
from bench.measure.worker.failures import classify, context_survives
from bench.measure.worker.jobs import Session, answer
from bench.measure.worker.protocol import read_request


def serve(
    jobs: TextIO, events: TextIO, device_name: str | None, threads: int | None = None
) -> None:
    """Answer jobs until stdin closes, or until this process can take no other.  threads: on a CPU;
    None: all cores."""
    send = Sender(events)
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        device = choose_device(device_name)
        send("hello", environment=describe(device).model_dump(mode="json"))
    except EnvironmentFault as error:
        send("failed", outcome="error", reason=str(error))
        return
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False  # its default is true
    desk = _Desk(device, clock_for(device), send)
    for line in jobs:
        if not desk.take(json.loads(line)):
            return  # a fresh process takes the next job


@dataclass(frozen=True)
class Sender:
    """Writes events, one a line."""

    events: TextIO

    def __call__(self, event: str, **fields: Any) -> None:
        self.events.write(json.dumps({"event": event, **fields}) + "\n")
        self.events.flush()


@dataclass
class _Desk:
    """Takes one job after another."""

    device: torch.device
    clock: Clock
    send: Sender
    sentinel: Sentinel | None = None
    """Made before the first job that is timed."""
    has_measured: bool = False

    def take(self, job: dict[str, Any]) -> bool:
        """Carry a job out and say how it ended -> whether this process can take another."""

        def on_round(stage: str, samples: list[float]) -> None:
            self.send("round", stage=stage, samples_s=samples)

        try:
            request = read_request(job)
            before = self._read_sentinel() if request.timed else None
            reply = answer(request, Session(self.device, self.clock, on_round))
        except Exception as error:
            return self._failed(error)
        fields, broken = reply.model_dump(mode="json"), False
        if request.timed:
            after = self._read_after()
            broken = after is None
            fields["sentinel"] = None if broken else {"before_s": before, "after_s": after}
        if not self.has_measured:
            _say_process_is_new(fields)
        self.has_measured = self.has_measured or request.measures
        self.send("done", **fields, ends=broken)
        return not broken

    def _failed(self, error: Exception) -> bool:
        outcome, reason = classify(error)
        if outcome == "error":
            traceback.print_exc()
        broken = self.device.type == "cuda" and not context_survives(error)
        read = error.correctness if isinstance(error, WrongNumbers) else None
        correctness = read.model_dump(mode="json") if read else None
        self.send("failed", outcome=outcome, reason=reason, ends=broken, correctness=correctness)
        return not broken

    def _read_sentinel(self) -> float:
        self.sentinel = self.sentinel or Sentinel(self.device, self.clock)
        return self.sentinel.read()

    def _read_after(self) -> float | None:
        """The sentinel once more; None where the context is broken, by a graph that could not be
        captured after the samples: what was measured before is kept, and this process ends."""
        try:
            if self.device.type == "cuda":
                # A failed capture may leave the generator as if it still went on.
                torch.randn(1, device=self.device)
            return self._read_sentinel()
        except RuntimeError:
            traceback.print_exc()
            return None


def _say_process_is_new(fields: dict[str, Any]) -> None:
    """In the first point's cold start: nothing but the sentinel ran in this process before."""
    first = (fields.get("points") or [fields])[0]
    if first.get("cold_start"):
        first["cold_start"]["process_is_new"] = True
