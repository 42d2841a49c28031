"""NVML that gives, refuses and breaks: by a fake of it and a fake clock.  No test waits for real
time to pass."""

import math

import pynvml
import pytest

from bench.measure.device.nvml import GPM_METRICS, THROTTLE_REASONS, Card, Gpm, Missing
from bench.measure.device.telemetry import Monitor
from bench.results.readings import Summary
from support.measure.fake_nvml import FakeClock, watched


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
