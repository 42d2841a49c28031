"""pynvml and a clock that are fakes: readings that a test sets, time that passes only in calls."""

import threading

import pynvml

from bench.measure.device.nvml import Card
from bench.measure.device.telemetry import Monitor
from bench.results.readings import StageTelemetry


class FakeNvml:
    """pynvml with one card: its own constants, errors and structures, and readings that a test
    sets.

    broken: name of a function -> the error it raises, or a callable that says what it returns."""

    def __init__(self, **broken):
        self.broken, self.asked, self.freed, self.sampled = broken, [], 0, threading.Semaphore(0)
        self.joules, self.reasons = 1000.0, 0x4
        self.percents = {
            "NVML_GPM_METRIC_DRAM_BW_UTIL": 50.0,
            "NVML_GPM_METRIC_ANY_TENSOR_UTIL": 80.0,
            "NVML_GPM_METRIC_SM_UTIL": 99.0,
            "NVML_GPM_METRIC_SM_OCCUPANCY": 25.0,
        }

    def __getattr__(self, name):
        real = getattr(pynvml, name)  # an unknown name is an AttributeError, as in the library
        if not name.startswith("nvml") or not callable(real):
            return real

        def call(*args):
            self.asked.append(name)
            what = self.broken.get(name)
            if isinstance(what, int):
                raise pynvml.NVMLError(what)
            if isinstance(what, Exception):
                raise what
            return what(*args) if callable(what) else getattr(self, f"_{name}")(*args)

        return call

    def _nvmlInit(self): ...

    def _nvmlDeviceGetHandleByUUID(self, uuid):
        if uuid != "GPU-1234":
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return "card"

    def _nvmlDeviceGetMigMode(self, handle):
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    def _nvmlDeviceGetClockInfo(self, handle, kind):
        return {pynvml.NVML_CLOCK_SM: 1980, pynvml.NVML_CLOCK_MEM: 2619}[kind]

    def _nvmlDeviceGetPowerUsage(self, handle):
        return 650_000

    def _nvmlDeviceGetTemperature(self, handle, sensor):
        return 61

    def _nvmlDeviceGetCurrentClocksEventReasons(self, handle):
        self.sampled.release()  # the last thing that a look at the card asks
        return self.reasons

    def _nvmlDeviceGetTotalEnergyConsumption(self, handle):
        return round(self.joules * 1e3)

    def _nvmlGpmQueryDeviceSupport(self, handle):
        support = pynvml.c_nvmlGpmSupport_t()
        support.isSupportedDevice = 1
        return support

    def _nvmlGpmSampleAlloc(self):
        return pynvml.c_nvmlGpmSample_t()

    def _nvmlGpmSampleGet(self, handle, sample): ...

    def _nvmlGpmSampleFree(self, sample):
        self.freed += 1

    def _nvmlGpmMetricsGet(self, query):
        assert query.version == 1
        by_id = {getattr(pynvml, name): value for name, value in self.percents.items()}
        for i in range(query.numMetrics):
            value = by_id[query.metrics[i].metricId]
            query.metrics[i].nvmlReturn = (
                pynvml.NVML_SUCCESS if value is not None else pynvml.NVML_ERROR_NOT_SUPPORTED
            )
            query.metrics[i].value = 0.0 if value is None else value
        return query


class FakeClock:
    """A call takes `seconds` and `joules` of the card; time passes only so."""

    def __init__(self, seconds: float, fake: FakeNvml | None = None, joules: float = 0.0):
        self.seconds, self.fake, self.joules, self.t = seconds, fake, joules, 0.0

    def time(self, call) -> float:
        call()
        self.t += self.seconds
        if self.fake is not None:
            self.fake.joules += self.joules
        return self.seconds

    def now(self) -> float:
        return self.t


def watched(fake: FakeNvml, *, seconds=0.3, joules=90.0, calls=2, bandwidth=2e12) -> StageTelemetry:
    """A stage of a few calls, looked at once in each, then its energy."""
    watch, clock = Monitor(Card("1234"), None, bandwidth), FakeClock(seconds, fake, joules)
    for _ in range(calls):
        watch.timed(
            "denoise_step", lambda: clock.time(lambda: watch.ticks.append(watch._look(*watch._now)))
        )
    return watch.finish("denoise_step", 1, lambda: None, clock)
