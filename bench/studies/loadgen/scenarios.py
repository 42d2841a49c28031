"""One scenario on one pipeline: LoadGen asks, the pipeline makes whole videos, both keep times.

SingleStream: the next video is asked for when the last is done; 90th percentile of latency.
Offline: all at once; videos a second.  Server: at random times of a Poisson process; a queue of one
device.  (MLPerf Inference rules; text-to-video has the first two.)
"""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bench.core.errors import EnvironmentFault
from bench.results.store import disk_faults
from bench.studies.loadgen.summary import Summary, read_summary

Scenario = Literal["single-stream", "offline", "server"]
NAMES = {"single-stream": "SingleStream", "offline": "Offline", "server": "Server"}
PERCENTILES = (0.5, 0.9, 0.99)
PROMPTS = 248
"""Of the benchmark's data set; random weights make the same of all."""


@dataclass(frozen=True)
class Asked:
    """What LoadGen is told."""

    scenario: Scenario
    queries: int
    """Videos, at least."""
    min_s: float
    """The run lasts so long, at least."""
    target_qps: float
    """Videos a second: asked for by Server, expected by Offline."""


@dataclass
class Own:
    """What this side saw: seconds from a query to its answer, and from the first to the last."""

    latencies_s: list[float] = field(default_factory=list)
    began_s: float | None = None
    ended_s: float = 0.0

    def percentile_s(self, share: float) -> float:
        """As LoadGen takes it: the value at rank share x n of the sorted latencies."""
        ordered = sorted(self.latencies_s)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]

    @property
    def samples_per_s(self) -> float:
        assert self.began_s is not None
        return len(self.latencies_s) / (self.ended_s - self.began_s)


@dataclass(frozen=True)
class Result:
    """LoadGen's own summary beside ours."""

    asked: Asked
    own: Own
    summary: Summary
    folder: Path


def run_scenario(
    make_video: Callable[[], Any],
    asked: Asked,
    folder: Path,
    wait: Callable[[], None] = lambda: None,
) -> Result:
    """Let LoadGen drive `make_video`.  wait: until the device is done with it.  Raises
    EnvironmentFault without the package."""
    try:
        import mlperf_loadgen as loadgen
    except ImportError:
        raise EnvironmentFault(
            "MLCommons' LoadGen is not installed: pip install 'ldt-bench[loadgen]'"
        ) from None
    with disk_faults(folder, measured=False):
        folder.mkdir(parents=True, exist_ok=True)
    device = _Device(loadgen, make_video, wait)
    issue = device.enqueue if asked.scenario == "server" else device.make
    sut = loadgen.ConstructSUT(issue, device.flush)
    library = loadgen.ConstructQSL(PROMPTS, PROMPTS, lambda _: None, lambda _: None)
    with device:
        loadgen.StartTestWithLogSettings(
            sut, library, _settings(loadgen, asked), _log(loadgen, folder)
        )
    loadgen.DestroyQSL(library)
    loadgen.DestroySUT(sut)
    if device.failure is not None:
        raise device.failure
    return Result(asked, device.own, read_summary(folder), folder)


class _Device:
    """Makes one video after another.  What a call raises ends the run, and is kept: LoadGen would
    wait for ever."""

    def __init__(self, loadgen: Any, make_video: Callable[[], Any], wait: Callable[[], None]):
        self.loadgen, self.make_video, self.wait = loadgen, make_video, wait
        self.own, self.failure = Own(), None
        self.waiting: queue.Queue = queue.Queue()
        self.thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> "_Device":
        self.thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.waiting.put(None)
        self.thread.join()

    def make(self, samples: Sequence[Any]) -> None:
        """A query's samples, to the end."""
        came = time.perf_counter()
        for sample in samples:
            self._one(sample, came)

    def enqueue(self, samples: Sequence[Any]) -> None:
        """A query that waits for its turn."""
        came = time.perf_counter()
        for sample in samples:
            self.waiting.put((sample, came))

    def flush(self) -> None:
        """LoadGen has asked for everything."""

    def _serve(self) -> None:
        while (item := self.waiting.get()) is not None:
            self._one(*item)

    def _one(self, sample: Any, came: float) -> None:
        if self.own.began_s is None:
            self.own.began_s = came
        if self.failure is None:
            try:
                self.make_video()
                self.wait()
            except Exception as error:
                self.failure = error
        self.own.ended_s = time.perf_counter()
        self.own.latencies_s.append(self.own.ended_s - came)
        answer = self.loadgen.QuerySampleResponse(sample.id, 0, 0)
        self.loadgen.QuerySamplesComplete([answer])


def _settings(loadgen: Any, asked: Asked) -> Any:
    settings = loadgen.TestSettings()
    settings.scenario = getattr(loadgen.TestScenario, NAMES[asked.scenario])
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.min_query_count = 1 if asked.scenario == "offline" else asked.queries
    settings.min_duration_ms = int(asked.min_s * 1e3)
    settings.performance_sample_count_override = asked.queries
    if asked.scenario == "offline":
        # It asks for 1.1 x expected rate x duration samples, in one query.
        settings.offline_expected_qps = asked.target_qps
    elif asked.scenario == "server":
        settings.server_target_qps = asked.target_qps
        settings.server_target_latency_ns = int(1e9 * 3600)
    else:
        settings.single_stream_expected_latency_ns = int(1e9 / asked.target_qps)
    return settings


def _log(loadgen: Any, folder: Path) -> Any:
    output = loadgen.LogOutputSettings()
    output.outdir = str(folder)
    output.copy_summary_to_stdout = False
    settings = loadgen.LogSettings()
    settings.log_output = output
    settings.enable_trace = False
    return settings
