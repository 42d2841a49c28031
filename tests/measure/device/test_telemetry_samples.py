"""What the sampling thread reads over time, and what its nulls say."""

import threading

import pynvml
import pytest
import torch

from bench.core.load import load_point
from bench.measure.device import telemetry
from bench.measure.device.looks import MAX_SERIES, Tick, nothing
from bench.measure.device.nvml import GPM_METRICS, Card
from bench.measure.device.telemetry import Monitor, monitor
from bench.measure.points import single as measuring
from bench.measure.points.build import count_stages
from bench.measure.points.single import measure_point
from bench.measure.timing.clock import clock_for
from bench.measure.timing.sampling import sample
from bench.report.tables.device import throttling
from bench.results.readings import StageTelemetry, Summary
from support.measure.fake_nvml import FakeClock
from support.plans import PLAN

CPU = torch.device("cpu")


NO, LOST = pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_GPU_IS_LOST


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
    ).readings
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
