"""NVML that gives, refuses and breaks: by a fake of it and a fake clock.  No test waits for real
time to pass."""

import math
import threading

import pynvml
import pytest
import torch

from bench.core.load import load_point
from bench.measure.device import telemetry
from bench.measure.device.looks import MAX_SERIES, Tick, nothing
from bench.measure.device.nvml import GPM_METRICS, THROTTLE_REASONS, Card, Gpm, Missing
from bench.measure.device.telemetry import Monitor, monitor
from bench.measure.points import single as measuring
from bench.measure.points.build import count_stages
from bench.measure.points.single import measure_point
from bench.measure.timing.clock import clock_for
from bench.measure.timing.sampling import sample
from bench.report.tables.device import throttling
from bench.results.readings import StageTelemetry, Summary
from support.fake_nvml import FakeClock, watched
from support.plans import PLAN

CPU = torch.device("cpu")


def test_every_reading_in_si_by_hand(nvml):
    """0.3 s and 90 J a call: four calls make the second full, 360 J in 1.2 s, so 90 J a call at 300
    W."""
    seen = watched(nvml(), calls=4)
    assert (seen.n, seen.sampled_over) == (3, "timed")  # the warm-up call is not in it
    assert seen.sm_clock_hz == Summary(min=1.98e9, median=1.98e9, max=1.98e9, n=3)
    assert seen.memory_clock_hz.median == 2.619e9
    assert seen.power_w.median == 650.0
    assert seen.temperature_c.median == 61.0
    assert seen.throttle_fractions == {"sw_power_cap": 1.0}
    assert (seen.throttled, seen.power_limited) == (False, True)
    assert seen.energy.model_dump() == pytest.approx(
        {"energy_j": 90.0, "power_w": 300.0, "calls": 4, "window_s": 1.2}
    )
    assert (
        seen.dram_util_percent,
        seen.tensor_util_percent,
        seen.sm_util_percent,
        seen.sm_occupancy_percent,
    ) == (50.0, 80.0, 99.0, 25.0)
    assert seen.dram_bytes_per_s_derived == 1e12
    assert seen.missing == {}


@pytest.mark.parametrize(("seconds", "calls"), [(0.001, 1000), (0.4, 3), (1.0, 1), (90.0, 1)])
def test_the_energy_window_is_whole_calls_for_at_least_a_second(nvml, seconds, calls):
    fake = nvml()
    seen = watched(fake, seconds=seconds, joules=7.0)
    assert seen.energy.calls == pytest.approx(calls, abs=1)  # binary fractions may need one more
    assert seen.energy.window_s >= 1.0
    assert seen.energy.energy_j == pytest.approx(7.0)
    assert fake.freed == 2


NO, LOST = pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_GPU_IS_LOST


@pytest.mark.parametrize(
    ("function", "gone"),
    [
        ("nvmlDeviceGetClockInfo", {"sm_clock_hz", "memory_clock_hz"}),
        ("nvmlDeviceGetPowerUsage", {"power_w"}),
        ("nvmlDeviceGetTemperature", {"temperature_c"}),
        ("nvmlDeviceGetTotalEnergyConsumption", {"energy"}),
        ("nvmlDeviceGetCurrentClocksEventReasons", {"throttle_fractions"}),
        ("nvmlGpmQueryDeviceSupport", {*GPM_METRICS, "dram_bytes_per_s_derived"}),
        ("nvmlGpmSampleAlloc", {*GPM_METRICS, "dram_bytes_per_s_derived"}),
        ("nvmlGpmSampleGet", {*GPM_METRICS, "dram_bytes_per_s_derived"}),
        ("nvmlGpmMetricsGet", {*GPM_METRICS, "dram_bytes_per_s_derived"}),
    ],
)
@pytest.mark.parametrize("error", [NO, LOST, OSError("no symbol"), AttributeError("gone")])
def test_a_refused_reading_is_null_with_its_own_reason_and_costs_no_other(
    nvml, function, gone, error
):
    seen = watched(nvml(**{function: error}))
    assert set(seen.missing) == gone
    words = str(pynvml.NVMLError(error)) if isinstance(error, int) else str(error)
    assert all(words in why for why in seen.missing.values())
    whole = watched(nvml()).model_dump()
    for name, value in seen.model_dump(
        exclude={"missing", "series", "throttled", "power_limited"}
    ).items():
        assert value is None if name in gone else value == whole[name]


def test_without_gpm_and_counter_no_window_is_run(nvml):
    fake = nvml(
        nvmlDeviceGetTotalEnergyConsumption=NO,
        nvmlGpmQueryDeviceSupport=lambda handle: pynvml.c_nvmlGpmSupport_t(),
    )
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

    assert (
        watched(nvml(nvmlDeviceGetTotalEnergyConsumption=once)).missing["energy"]
        == "NVML: GPU is lost"
    )
    assert "moved by 0 J" in watched(nvml(), joules=0.0).missing["energy"]


@pytest.mark.parametrize(
    ("value", "why"), [(None, "GPM: Not Supported"), (math.nan, "GPM: it read nan")]
)
def test_one_gpm_metric_of_four_may_be_missing(nvml, value, why):
    fake = nvml()
    fake.percents["NVML_GPM_METRIC_DRAM_BW_UTIL"] = value
    seen = watched(fake)
    assert seen.missing == {"dram_util_percent": why, "dram_bytes_per_s_derived": why}
    assert seen.tensor_util_percent == 80.0


def test_an_unlisted_card_has_no_derived_bandwidth(nvml):
    seen = watched(nvml(), bandwidth=None)
    assert seen.dram_util_percent == 50.0
    assert seen.missing == {
        "dram_bytes_per_s_derived": "no datasheet gives this device's bandwidth"
    }


def test_a_mig_slice_is_found_and_does_not_claim_the_cards_energy(nvml):
    def handle(uuid):
        if uuid != "MIG-1234":
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return "slice"

    slices = []
    seen = watched(
        nvml(
            nvmlDeviceGetHandleByUUID=handle,
            nvmlDeviceGetDeviceHandleFromMigDeviceHandle=lambda h: {"slice": "card"}[h],
            nvmlDeviceGetGpuInstanceId=lambda h: {"slice": 9}[h],
            nvmlGpmSampleGet=NO,
            nvmlGpmMigSampleGet=lambda *args: slices.append(args[:2]),
        )
    )
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
    card.nvml = nvml(
        nvmlDeviceGetCurrentClocksEventReasons=unknown,
        nvmlDeviceGetTemperature=unknown,
        nvmlDeviceGetCurrentClocksThrottleReasons=lambda handle: 0x48,
        nvmlDeviceGetTemperatureV=lambda *a: 70,
    )
    card.card = "card"
    assert card.throttle_reasons() == ["hw_slowdown", "hw_thermal_slowdown"]
    assert card.temperature_c() == 70


def test_what_is_asked_for_exists_in_the_library():
    for bit, name in THROTTLE_REASONS.items():
        words = "".join(part.title() for part in name.split("_"))
        assert getattr(pynvml, f"nvmlClocksThrottleReason{words}") == bit
    assert [getattr(pynvml, name) for name in GPM_METRICS.values()] == [10, 5, 2, 3]


@pytest.mark.parametrize(
    ("uuid", "broken", "why"),
    [
        (
            "1234",
            {"nvmlInit": pynvml.NVML_ERROR_LIBRARY_NOT_FOUND},
            "NVML Shared Library Not Found",
        ),
        ("1234", {"nvmlInit": pynvml.NVML_ERROR_DRIVER_NOT_LOADED}, "Driver Not Loaded"),
        ("other", {}, "Not Found"),
    ],
)
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
@pytest.mark.parametrize(
    "reason",
    ["hw_slowdown", "hw_thermal_slowdown", "sw_thermal_slowdown", "hw_power_brake_slowdown"],
)
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
        timing = sample(
            lambda: watch.timed("a", lambda: clock.time(call)),
            PLAN.model_copy(update={"min_samples": 3, "max_samples": 3}),
            clock.now,
        )
        seen = watch.finish("a", len(timing.warmup_s))
        assert [t.name for t in threading.enumerate()].count("telemetry") == 1
    assert seen.n >= 3
    assert all(t.stage == "a" for t in watch.ticks)
    assert "telemetry" not in [t.name for t in threading.enumerate()]
    assert not [
        name
        for name in fake.asked
        if name.startswith(("nvmlDeviceSet", "nvmlDeviceReset", "nvmlGpmSet"))
    ]


def test_nvml_breaking_in_the_middle_costs_no_measurement(nvml, monkeypatch):
    """The whole way of a point, with a card whose clocks are lost after the second question."""
    fake, asked = nvml(), []
    good = fake._nvmlDeviceGetClockInfo

    def dies(*args):
        asked.append(1)
        if len(asked) > 2:
            raise pynvml.NVMLError(LOST)
        return good(*args)

    fake.broken |= {
        "nvmlDeviceGetClockInfo": dies,
        "nvmlDeviceGetTotalEnergyConsumption": ValueError("nonsense"),
    }
    monkeypatch.setattr(telemetry, "INTERVAL_S", 0.01)
    monkeypatch.setattr(telemetry, "ENERGY_WINDOW_S", 0.05)
    monkeypatch.setattr(measuring, "monitor", lambda device: Monitor(Card("1234"), None))
    plan = PLAN.model_copy(update={"min_samples": 3, "max_samples": 3, "max_s": 0.1})
    point = load_point("tiny", "tiny-image", "eager-fp32", stages=("text_encode", "vae_encode"))
    timings, memory, seen = measure_point(
        point, count_stages(point), CPU, clock_for(CPU), plan, prior={}, on_round=lambda *_: None
    )
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
        StageTelemetry.model_validate(
            {
                **nothing("x").model_dump(),
                "reason": None,
                "missing": dict.fromkeys(
                    (
                        "sm_clock_hz",
                        "memory_clock_hz",
                        "power_w",
                        "temperature_c",
                        "throttle_fractions",
                        *GPM_METRICS,
                        "dram_bytes_per_s_derived",
                    ),
                    "why",
                ),
            }
        )


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
