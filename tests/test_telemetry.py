"""NVML that gives, refuses and breaks: by a fake of it and a fake clock.  No test waits for real time to pass."""

import json
import math
import threading

import pynvml
import pytest
import torch
from test_fit import calibration, count, environment, estimate
from test_report import shown
from test_sampling import PLAN
from test_store import point_record

from bench.calibrate.calibrate import stage_power
from bench.calibrate.calibration import FittedStage
from bench.core.load import load_point
from bench.core.records import CeilingsRecord, Memory, PointRecord, Probe, StageMemory, StageTelemetry, Summary
from bench.count.count import count_model
from bench.count.document import count_document
from bench.count.fits import fits_memory
from bench.measure import point as measuring
from bench.measure import telemetry
from bench.measure.clock import clock_for
from bench.measure.nvml import GPM_METRICS, THROTTLE_REASONS, Card, Gpm, Missing
from bench.measure.point import count_stages, measure_point
from bench.measure.sampling import sample, summarise
from bench.measure.telemetry import MAX_SERIES, Monitor, Tick, monitor, nothing
from bench.report.device_tables import bandwidth_rows, clock_rows, gaps, memory_rows, throttling, traffic_rows
from bench.report.documents import ceilings_document
from bench.report.tables import bandwidth_table, ceilings_table, count_table, points_table

CPU = torch.device("cpu")


class FakeNvml:
    """pynvml with one card: its own constants, errors and structures, and readings that a test sets.

    broken: name of a function -> the error it raises, or a callable that says what it returns."""

    def __init__(self, **broken):
        self.broken, self.asked, self.freed, self.sampled = broken, [], 0, threading.Semaphore(0)
        self.joules, self.reasons = 1000.0, 0x4
        self.percents = {"NVML_GPM_METRIC_DRAM_BW_UTIL": 50.0, "NVML_GPM_METRIC_ANY_TENSOR_UTIL": 80.0,
                         "NVML_GPM_METRIC_SM_UTIL": 99.0, "NVML_GPM_METRIC_SM_OCCUPANCY": 25.0}

    def __getattr__(self, name):
        real = getattr(pynvml, name)             # an unknown name is an AttributeError, as in the library
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
        self.sampled.release()                   # the last thing that a look at the card asks
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
            query.metrics[i].nvmlReturn = pynvml.NVML_SUCCESS if value is not None else pynvml.NVML_ERROR_NOT_SUPPORTED
            query.metrics[i].value = 0.0 if value is None else value
        return query


@pytest.fixture
def nvml(monkeypatch):
    def install(**broken) -> FakeNvml:
        fake = FakeNvml(**broken)
        monkeypatch.setitem(__import__("sys").modules, "pynvml", fake)
        return fake
    return install


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
        watch.timed("denoise_step", lambda: clock.time(lambda: watch.ticks.append(watch._look(*watch._now))))
    return watch.finish("denoise_step", 1, lambda: None, clock)


def test_every_reading_in_si_by_hand(nvml):
    """0.3 s and 90 J a call: four calls make the second full, 360 J in 1.2 s, so 90 J a call at 300 W."""
    seen = watched(nvml(), calls=4)
    assert (seen.n, seen.sampled_over) == (3, "timed")            # the warm-up call is not in it
    assert seen.sm_clock_hz == Summary(min=1.98e9, median=1.98e9, max=1.98e9, n=3)
    assert seen.memory_clock_hz.median == 2.619e9
    assert seen.power_w.median == 650.0
    assert seen.temperature_c.median == 61.0
    assert seen.throttle_fractions == {"sw_power_cap": 1.0}
    assert (seen.throttled, seen.power_limited) == (False, True)
    assert seen.energy.model_dump() == pytest.approx({"energy_j": 90.0, "power_w": 300.0, "calls": 4, "window_s": 1.2})
    assert (seen.dram_util_percent, seen.tensor_util_percent, seen.sm_util_percent, seen.sm_occupancy_percent) == \
        (50.0, 80.0, 99.0, 25.0)
    assert seen.dram_bytes_per_s_derived == 1e12
    assert seen.missing == {}


@pytest.mark.parametrize(("seconds", "calls"), [(0.001, 1000), (0.4, 3), (1.0, 1), (90.0, 1)])
def test_the_energy_window_is_whole_calls_for_at_least_a_second(nvml, seconds, calls):
    fake = nvml()
    seen = watched(fake, seconds=seconds, joules=7.0)
    assert seen.energy.calls == pytest.approx(calls, abs=1)      # binary fractions may need one more
    assert seen.energy.window_s >= 1.0
    assert seen.energy.energy_j == pytest.approx(7.0)
    assert fake.freed == 2


NO, LOST = pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_GPU_IS_LOST


@pytest.mark.parametrize(("function", "gone"), [
    ("nvmlDeviceGetClockInfo", {"sm_clock_hz", "memory_clock_hz"}), ("nvmlDeviceGetPowerUsage", {"power_w"}),
    ("nvmlDeviceGetTemperature", {"temperature_c"}), ("nvmlDeviceGetTotalEnergyConsumption", {"energy"}),
    ("nvmlDeviceGetCurrentClocksEventReasons", {"throttle_fractions"}),
    ("nvmlGpmQueryDeviceSupport", {*GPM_METRICS, "dram_bytes_per_s_derived"}),
    ("nvmlGpmSampleAlloc", {*GPM_METRICS, "dram_bytes_per_s_derived"}),
    ("nvmlGpmSampleGet", {*GPM_METRICS, "dram_bytes_per_s_derived"}),
    ("nvmlGpmMetricsGet", {*GPM_METRICS, "dram_bytes_per_s_derived"}),
])
@pytest.mark.parametrize("error", [NO, LOST, OSError("no symbol"), AttributeError("gone")])
def test_a_refused_reading_is_null_with_its_own_reason_and_costs_no_other(nvml, function, gone, error):
    seen = watched(nvml(**{function: error}))
    assert set(seen.missing) == gone
    words = str(pynvml.NVMLError(error)) if isinstance(error, int) else str(error)
    assert all(words in why for why in seen.missing.values())
    whole = watched(nvml()).model_dump()
    for name, value in seen.model_dump(exclude={"missing", "series", "throttled", "power_limited"}).items():
        assert value is None if name in gone else value == whole[name]


def test_without_gpm_and_counter_no_window_is_run(nvml):
    fake = nvml(nvmlDeviceGetTotalEnergyConsumption=NO, nvmlGpmQueryDeviceSupport=lambda handle: pynvml.c_nvmlGpmSupport_t())
    clock = FakeClock(0.3, fake)
    seen = Monitor(Card("1234"), None).finish("denoise_step", 0, lambda: None, clock)
    assert clock.t == 0.0
    assert "Hopper" in seen.missing["tensor_util_percent"]
    assert seen.missing["power_w"] == "the stage was over before the first sample"


def test_a_counter_that_fails_at_the_end_or_stands_still(nvml):
    answers = iter([5_000_000])

    def once(handle):
        for answer in answers:
            return answer
        raise pynvml.NVMLError(LOST)

    assert watched(nvml(nvmlDeviceGetTotalEnergyConsumption=once)).missing["energy"] == "NVML: GPU is lost"
    assert "moved by 0 J" in watched(nvml(), joules=0.0).missing["energy"]


@pytest.mark.parametrize(("value", "why"), [(None, "GPM: Not Supported"), (math.nan, "GPM: it read nan")])
def test_one_gpm_metric_of_four_may_be_missing(nvml, value, why):
    fake = nvml()
    fake.percents["NVML_GPM_METRIC_DRAM_BW_UTIL"] = value
    seen = watched(fake)
    assert seen.missing == {"dram_util_percent": why, "dram_bytes_per_s_derived": why}
    assert seen.tensor_util_percent == 80.0


def test_an_unlisted_card_has_no_derived_bandwidth(nvml):
    seen = watched(nvml(), bandwidth=None)
    assert seen.dram_util_percent == 50.0
    assert seen.missing == {"dram_bytes_per_s_derived": "no datasheet gives this device's bandwidth"}


def test_a_mig_slice_is_found_and_does_not_claim_the_cards_energy(nvml):
    def handle(uuid):
        if uuid != "MIG-1234":
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return "slice"

    slices = []
    seen = watched(nvml(
        nvmlDeviceGetHandleByUUID=handle, nvmlDeviceGetDeviceHandleFromMigDeviceHandle=lambda h: {"slice": "card"}[h],
        nvmlDeviceGetGpuInstanceId=lambda h: {"slice": 9}[h], nvmlGpmSampleGet=NO,
        nvmlGpmMigSampleGet=lambda *args: slices.append(args[:2])))
    assert slices == [("card", 9)] * 2
    assert (seen.power_w, seen.energy, seen.dram_bytes_per_s_derived) == (None, None, None)
    assert "other slices" in seen.missing["energy"]
    assert "part of the datasheet" in seen.missing["dram_bytes_per_s_derived"]
    assert seen.sm_clock_hz.median == 1.98e9
    assert seen.tensor_util_percent == 80.0


def test_a_card_in_mig_mode_whose_slice_is_unknown_gives_no_energy_and_no_utilisation(nvml):
    seen = watched(nvml(nvmlDeviceGetMigMode=lambda handle: [1, 1]))
    assert {"power_w", "energy", *GPM_METRICS} <= set(seen.missing)
    assert all(why.startswith("MIG") for why in seen.missing.values())


def test_older_drivers_and_newer_libraries(nvml):
    """Functions that a driver does not have yet, and some that a library has dropped."""
    unknown = pynvml.NVML_ERROR_FUNCTION_NOT_FOUND
    card = Card.__new__(Card)
    card.nvml = nvml(nvmlDeviceGetCurrentClocksEventReasons=unknown, nvmlDeviceGetTemperature=unknown,
                     nvmlDeviceGetCurrentClocksThrottleReasons=lambda handle: 0x48, nvmlDeviceGetTemperatureV=lambda *a: 70)
    card.card = "card"
    assert card.throttle_reasons() == ["hw_slowdown", "hw_thermal_slowdown"]
    assert card.temperature_c() == 70


def test_what_is_asked_for_exists_in_the_library():
    for bit, name in THROTTLE_REASONS.items():
        words = "".join(part.title() for part in name.split("_"))
        assert getattr(pynvml, f"nvmlClocksThrottleReason{words}") == bit
    assert [getattr(pynvml, name) for name in GPM_METRICS.values()] == [10, 5, 2, 3]


@pytest.mark.parametrize(("uuid", "broken", "why"), [
    ("1234", {"nvmlInit": pynvml.NVML_ERROR_LIBRARY_NOT_FOUND}, "NVML Shared Library Not Found"),
    ("1234", {"nvmlInit": pynvml.NVML_ERROR_DRIVER_NOT_LOADED}, "Driver Not Loaded"), ("other", {}, "Not Found")])
def test_no_nvml_is_a_reason(nvml, uuid, broken, why):
    nvml(**broken)
    with pytest.raises(Missing, match=why):
        Card(uuid)


def test_gpm_frees_its_samples_whatever_happens(nvml):
    fake = nvml(nvmlGpmMetricsGet=LOST)
    Gpm(Card("1234")).read()
    assert fake.freed == 2
    fake = nvml(nvmlGpmSampleGet=LOST)
    with pytest.raises(Missing):
        Gpm(Card("1234"))
    assert fake.freed == 2


def test_an_error_of_the_timed_call_is_the_calls_own(nvml):
    def fails() -> None:
        raise RuntimeError("the call's own")

    fake = nvml()
    with pytest.raises(RuntimeError, match="the call's own"):
        Monitor(Card("1234"), None).finish("x", 0, fails, FakeClock(1.0))
    assert fake.freed == 2


def tick(call: int, reasons: list[str] | None, clock: float = 1e9) -> Tick:
    return Tick(float(call), "s", call, {"sm_clock_hz": clock}, reasons, {})


@pytest.mark.parametrize(("slow", "throttled"), [(5, False), (6, True)])
@pytest.mark.parametrize("reason", ["hw_slowdown", "hw_thermal_slowdown", "sw_thermal_slowdown", "hw_power_brake_slowdown"])
def test_throttled_is_over_five_percent_of_the_samples(nvml, reason, slow, throttled):
    nvml()
    watch = Monitor(Card("1234"), None)
    watch.ticks = [tick(i, [reason] if i < slow else ["gpu_idle"]) for i in range(100)]
    watch.calls["s"] = 100
    seen = watch.finish("s", 0)
    assert seen.throttle_fractions == {reason: slow / 100, "gpu_idle": 1 - slow / 100}
    assert (seen.throttled, seen.power_limited) == (throttled, False)
    assert throttling(seen) == (f"throttled: {reason} 6% of the samples" if throttled else "")


def test_summaries_use_every_sample_and_the_series_is_bounded(nvml):
    nvml()
    watch = Monitor(Card("1234"), None)
    watch.ticks = [tick(i, [], clock=1e9 + i) for i in range(1001)]
    watch.calls["s"] = 1001
    seen = watch.finish("s", 1)
    assert seen.sm_clock_hz == Summary(min=1e9 + 1, median=1e9 + 500.5, max=1e9 + 1000, n=1000)
    assert len(seen.series.t_s) == len(seen.series.sm_clock_hz) == MAX_SERIES
    assert seen.series.t_s[0] == 0.0
    assert seen.missing["energy"] == "not measured for probes"


def test_the_thread_samples_while_a_stage_runs_and_ends_with_the_block(nvml, monkeypatch):
    monkeypatch.setattr(telemetry, "INTERVAL_S", 0.001)
    fake, clock = nvml(), FakeClock(0.5)

    def call() -> None:
        for _ in range(3):
            assert fake.sampled.acquire(timeout=30)

    with Monitor(Card("1234"), None) as watch:
        timing = sample(lambda: watch.timed("a", lambda: clock.time(call)),
                        PLAN.model_copy(update={"min_samples": 3, "max_samples": 3}), clock.now)
        seen = watch.finish("a", len(timing.warmup_s))
        assert [t.name for t in threading.enumerate()].count("telemetry") == 1
    assert seen.n >= 3
    assert all(t.stage == "a" for t in watch.ticks)
    assert "telemetry" not in [t.name for t in threading.enumerate()]
    assert not [name for name in fake.asked if name.startswith(("nvmlDeviceSet", "nvmlDeviceReset", "nvmlGpmSet"))]


def test_nvml_breaking_in_the_middle_costs_no_measurement(nvml, monkeypatch):
    """The whole way of a point, with a card whose clocks are lost after the second question."""
    fake, asked = nvml(), []
    good = fake._nvmlDeviceGetClockInfo

    def dies(*args):
        asked.append(1)
        if len(asked) > 2:
            raise pynvml.NVMLError(LOST)
        return good(*args)

    fake.broken |= {"nvmlDeviceGetClockInfo": dies, "nvmlDeviceGetTotalEnergyConsumption": ValueError("nonsense")}
    monkeypatch.setattr(telemetry, "INTERVAL_S", 0.01)
    monkeypatch.setattr(telemetry, "ENERGY_WINDOW_S", 0.05)
    monkeypatch.setattr(measuring, "monitor", lambda device: Monitor(Card("1234"), None))
    plan = PLAN.model_copy(update={"min_samples": 3, "max_samples": 3, "max_s": 0.1})
    point = load_point("tiny", "tiny-image", "eager-fp32", stages=("text_encode", "vae_encode"))
    timings, memory, seen = measure_point(point, count_stages(point), CPU, clock_for(CPU), plan, prior={},
                                          on_round=lambda *_: None)
    assert set(timings) == set(seen) == set(point.stages)
    assert timings["vae_encode"].n == 3
    assert memory.inputs > 0
    assert all("nonsense" in t.missing["energy"] for t in seen.values())


def test_on_a_cpu_there_is_no_thread_and_one_reason():
    with monitor(CPU) as watch:
        assert watch._thread is None
        assert watch.timed("a", lambda: 2.0) == 2.0
        seen = watch.finish("a", 0, lambda: None, FakeClock(1.0))
    assert seen == nothing("no NVML on a CPU")


def test_a_null_without_a_reason_is_refused():
    with pytest.raises(ValueError, match="energy: null, and `missing` does not say why"):
        StageTelemetry.model_validate({**nothing("x").model_dump(), "reason": None, "missing": dict.fromkeys(
            ("sm_clock_hz", "memory_clock_hz", "power_w", "temperature_c", "throttle_fractions", *GPM_METRICS,
             "dram_bytes_per_s_derived"), "why")})


# Energy of a prediction

def with_telemetry(nvml, stage="denoise_step", **kwargs) -> PointRecord:
    record = point_record()
    return record.model_copy(update={"telemetry": {stage: watched(nvml(), **kwargs)}})


def test_power_of_a_stage_is_energy_over_time_else_the_reading(nvml):
    counted, other = with_telemetry(nvml), with_telemetry(nvml, joules=30.0)
    read = point_record().model_copy(update={"telemetry": {"denoise_step": watched(
        nvml(nvmlDeviceGetTotalEnergyConsumption=NO)), "vae_decode": nothing("x")}})
    assert stage_power([counted]) == {"denoise_step": pytest.approx(300.0)}             # 90 J in 0.3 s
    assert stage_power([counted, other]) == {"denoise_step": pytest.approx(200.0)}      # and 30 J in 0.3 s
    assert stage_power([read]) == {"denoise_step": 650.0}                               # the median reading
    assert stage_power([point_record()]) == {}


def test_kwh_from_the_energy_of_a_step_by_hand():
    """250 steps of 1,000 J, a decode of 1 s at 400 W, a prompt of 1 s at the denoise steps' 600 W: 251,000 J for a clip
    of 1/24 s, so 251,000 x 24 x 60 / 3.6e6 = 100.4 kWh a minute."""
    base = calibration(power=600.0)
    point = load_point("sora-3b", "image-512", "eager-bf16")
    stage = FittedStage(point="sora-3b image-512 eager-bf16", stage="denoise_step", tokens=1024, flops=1, measured_s=2.0,
                        fitted_s=2.0, held_out_s=None, subject=point.subject, energy_j=1000.0)
    fit = base.fit_for(None).model_copy(update={"stages": [stage]})
    c = base.model_copy(update={"fits": {"eager-bf16": fit}, "stage_power_w": {"denoise_step": 600.0, "vae_decode": 400.0}})
    kwh = estimate(c=c).kwh_per_minute
    assert kwh.value == pytest.approx(100.4)
    assert kwh.low < 100.4 < kwh.high < 100.6                # only decode and prompt are uncertain
    # Another point has no energy of its own: 500 s at 600 W + 1 s at 400 W + 1 s at 600 W = 301,000 J.
    namesake = stage.model_copy(update={"subject": "another"})
    c.fits["eager-bf16"] = fit.model_copy(update={"stages": [namesake]})
    assert estimate(c=c).kwh_per_minute.value == pytest.approx(301_000 * 24 * 60 / 3.6e6)


def test_no_power_no_energy_and_a_warning():
    e = estimate(c=calibration().model_copy(update={"stage_power_w": {"vae_decode": 100.0}}))
    assert e.kwh_per_minute is None
    assert any("no energy: neither energy nor power of denoise_step" in w for w in e.warnings)


# Reports

def test_the_report_says_what_is_measured_modelled_and_derived(nvml):
    record = with_telemetry(nvml)
    record.counts["denoise_step"] = count(linear_flops=10**9, bytes_modelled_min=10**9, bytes_modelled_max=3 * 10**9)
    assert traffic_rows([record]) == [
        ["tiny tiny-clip eager-fp32", "denoise_step", "1 GB/s to 3 GB/s", "50 %", "1 TB/s", "80 %", "90 J"]]
    assert clock_rows([record])[0][3:] == ["1980 MHz", "2619 MHz", "650 W", "61 °C",
                                           "power-limited: sw_power_cap 100% of the samples"]
    assert gaps([record]) == []
    assert gaps([point_record(), with_telemetry(nvml, bandwidth=None)]) == [
        "dram_bytes_per_s_derived: no datasheet gives this device's bandwidth"]
    assert "power-limited" in shown(points_table([record]), 200)
    assert PointRecord.model_validate(json.loads(record.model_dump_json())) == record


def test_a_throttled_stage_is_kept_and_marked(nvml):
    fake = nvml()
    fake.reasons = 0x8 | 0x40
    record = point_record().model_copy(update={"telemetry": {"denoise_step": watched(fake)}})
    text = shown(points_table([record]), 240)
    assert "throttled: hw_slowdown 100%, hw_thermal_slowdown 100% of the samples" in text
    assert record.outcome == "ok"


def test_memory_beside_its_model():
    """Weights of 1 GiB, 3 GiB modelled alive, 5 GiB allocated of which 0.5 GiB are inputs."""
    gib = 2**30
    memory = Memory(weights=gib, inputs=gib // 2, peak_allocated=5 * gib, peak_reserved=6 * gib, reason=None, by_stage={
        "denoise_step": StageMemory(peak_allocated=5 * gib, peak_reserved=6 * gib, device_used=7 * gib,
                                    activations=7 * gib // 2)})
    record = point_record().model_copy(update={"memory": memory})
    record.counts["denoise_step"] = count(linear_flops=1, bytes_peak_activations=3 * gib)
    assert memory_rows([record]) == [["tiny tiny-clip eager-fp32", "denoise_step", "1 GiB", "4 GiB", "5 GiB", "6 GiB",
                                      "7 GiB", "3.5 GiB"]]
    cpu = Memory(weights=gib, inputs=1, peak_allocated=2 * gib, peak_reserved=None, reason="a CPU")
    assert [row[1] for row in memory_rows([record.model_copy(update={"memory": cpu})])] == ["denoise_step", "whole process"]


def test_bandwidth_by_size_and_the_ceiling_beyond_the_caches():
    def probe(kind: str, size: int, seconds: float, dtype: str = "fp32") -> Probe:
        return Probe(kind=kind, dtype=dtype, backend=None, shape={"bytes": size}, flops=None, bytes_moved=2 * size,
                     timing=summarise([seconds] * 7, [], "converged", True))

    record = CeilingsRecord(
        fingerprint="c", suite="s", started_utc="", wall_s=1.0, outcome="ok", reason=None, environment=environment(),
        telemetry=None, probes=[probe("copy", 2**20, 1e-6), probe("copy", 2**30, 2**31 / 1e12),
                                probe("read", 2**20, 2**21 / 4e12),
                                probe("copy", 2**30, 2**31 / 1.5e12, "bf16"), probe("write", 2**18, 2**19 / 2e12)])
    assert record.peak("copy") == pytest.approx(1.5e12)          # the largest array's best, not the cache's
    assert record.peak("copy", "fp32") == pytest.approx(1e12)
    assert bandwidth_rows(record) == [
        ["1 MiB", "fp32", "2.1 TB/s", "–", "4 TB/s", "–"], ["1 GiB", "fp32", "1 TB/s", "–", "–", "–"],
        ["1 GiB", "bf16", "1.5 TB/s", "–", "–", "–"], ["256 KiB", "fp32", "–", "–", "–", "2 TB/s"]]
    d = ceilings_document(record)
    assert d["read"]["bytes_per_s"] == pytest.approx(4e12)
    assert d["write"]["sizes"][0]["bytes"] == 2**18
    assert d["triad"] == {"bytes_per_s": None, "sizes": []}
    assert "bytes=1,048,576" not in shown(ceilings_table(record, None)).split("read")[0]
    assert "256 KiB" in shown(bandwidth_table(record))


def test_which_cards_a_point_fits():
    """tiny fits every card whose memory is known; a denoiser of 50e9 bf16 parameters (100 GB) only the largest ones."""
    point = load_point("tiny", "tiny-image", "eager-bf16")
    counted = count_model(point.model, point.workload, "bf16")
    d = count_document(point, counted)
    assert d["fits"]["cpu"] is None
    assert all(fits for gpu, fits in d["fits"].items() if gpu != "cpu")
    assert d["fits_vae_decode"]["rtx-4090"] is True
    assert "fits (weights and a step, modelled)" in shown(count_table(d), 200)
    big = {"denoiser": 50 * 10**9}
    counts = {"denoise_step": count(bytes_peak_activations=5 * 10**9)}
    assert fits_memory(point, counts, big, 105 * 10**9) is True
    assert fits_memory(point, counts, big, 105 * 10**9 - 1) is False
    assert fits_memory(point, counts, big, None) is None


def test_the_datasheet_of_a_listed_card_gives_its_bandwidth(nvml, monkeypatch):
    class Properties:
        name, uuid = "NVIDIA H100 80GB HBM3", "1234"

    nvml()
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Properties)
    watch = monitor(torch.device("cuda", 0))
    assert watch.bandwidth == 3.35e12
    Properties.name = "unknown"
    assert monitor(torch.device("cuda", 0)).bandwidth is None
    Properties.uuid = "gone"
    assert "Not Found" in monitor(torch.device("cuda", 0)).reason
