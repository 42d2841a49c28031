"""A step of 57 s on a card: how often it is called in all, and what is read around it.  By fakes of
CUDA, NVML and time."""

import contextlib

import pytest
import torch

from bench.core.load import load_point
from bench.count.point import ModelCount
from bench.measure.device.nvml import Card
from bench.measure.device.telemetry import Monitor
from bench.measure.points import against as beside
from bench.measure.points import single as measuring
from bench.measure.points.against import Pair, measure_against
from bench.measure.points.build import count_stages
from bench.measure.points.single import measure_point
from models import kernels
from support.measure.fake_nvml import FakeClock, watched
from support.plans import PLAN

CUDA = torch.device("cuda", 0)
STEP_S, STEP_J = 57.0, 39_900.0  # 700 W


BLOCKS = 42


class Step:
    """A denoising step that only attends, and counts itself where it comes to its end."""

    def __init__(self):
        self.calls, self.blocks = 0, 0

    def __call__(self) -> torch.Tensor:
        for _ in range(BLOCKS):
            self.blocks += 1
            kernels.attention(*torch.ones(3, 1, 1, 4, 8))
        self.calls += 1
        return torch.ones(2)


@pytest.fixture
def card(monkeypatch, nvml):
    """card(seconds) -> (the fake NVML, its clock, the step): torch.cuda answers as a card that
    holds everything."""
    answers = {
        "memory_allocated": 0,
        "max_memory_allocated": 50 * 10**9,
        "max_memory_reserved": 60 * 10**9,
        "mem_get_info": (30 * 10**9, 80 * 10**9),
        "get_device_capability": (9, 0),
    }
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, lambda device=None, answer=answer: answer)
    for name in ("empty_cache", "reset_peak_memory_stats", "synchronize"):
        monkeypatch.setattr(torch.cuda, name, lambda device=None: None)

    def install(seconds: float):
        fake, step = nvml(), Step()
        clock = FakeClock(seconds, fake, STEP_J / STEP_S * seconds)
        for module in (measuring, beside):
            monkeypatch.setattr(
                module, "monitor", lambda device: Monitor(Card("1234"), None, 3.35e12)
            )
            monkeypatch.setattr(
                module, "build_calls", lambda point, device: ({"denoise_step": step}, 0)
            )
            monkeypatch.setattr(module, "around", lambda *recipes: contextlib.nullcontext())
        return fake, clock, step

    return install


def counted() -> tuple:
    point = load_point("tiny", "tiny-image", "eager-bf16-chunks")
    return point, count_stages(point)


def measure(point, counts: ModelCount, clock):
    measured = measure_point(point, counts, CUDA, clock, PLAN, prior={}, on_round=lambda *_: None)
    return measured.readings


def test_a_step_of_57_s_is_called_three_times_in_all(card):
    """One warm-up, two samples; no graph, no call for energy, none for memory, no first call.  The
    look at what attention ran by ends in the third block."""
    fake, clock, step = card(STEP_S)
    timings, memory, telemetry = measure(*counted(), clock)
    assert (step.calls, step.blocks) == (3, 3 * BLOCKS + 3)
    assert clock.t == 3 * STEP_S
    timing, seen = timings["denoise_step"], telemetry["denoise_step"]
    assert (len(timing.warmup_s), timing.n, timing.confidence, timing.stop) == (
        1,
        2,
        0.5,
        "max_samples",
    )
    assert "not replayed" in timing.launch.reason
    assert seen.energy.model_dump() == pytest.approx(
        {"energy_j": STEP_J, "power_w": 700.0, "calls": 2, "window_s": 114.0}
    )
    assert (seen.dram_util_percent, seen.dram_bytes_per_s_derived) == (50.0, 0.5 * 3.35e12)
    assert memory.by_stage["denoise_step"].peak_allocated == 50 * 10**9
    assert fake.freed == 2 * 2  # the two GPM samples of each window


@pytest.mark.parametrize(("seconds", "calls"), [(20.0, 4), (6.0, 4), (3.0, 3 + 4)])
def test_other_long_steps_make_no_call_of_their_own_for_energy(card, seconds, calls):
    """Of 3 s: three of warm-up that agree, and as many samples as fit in ten seconds and a call."""
    _, clock, step = card(seconds)
    timings, _, telemetry = measure(*counted(), clock)
    assert step.calls == calls == timings["denoise_step"].n + len(timings["denoise_step"].warmup_s)
    assert telemetry["denoise_step"].energy.calls == timings["denoise_step"].n
    assert telemetry["denoise_step"].energy.energy_j == pytest.approx(700.0 * seconds)


def test_a_short_step_still_has_a_window_of_its_own(card):
    _, clock, step = card(0.4)
    timings, _, telemetry = measure(*counted(), clock)
    timing, energy = timings["denoise_step"], telemetry["denoise_step"].energy
    assert energy.calls == 3  # 1.2 s
    assert step.calls == len(timing.warmup_s) + timing.n + energy.calls


def test_in_turns_with_a_baseline_each_side_is_called_three_times(card, monkeypatch):
    """The call that shows the peak of memory is the warm-up, and the outputs that are compared are
    those of the samples."""
    _, clock, _ = card(STEP_S)
    sides = {"eager-bf16-chunks": Step(), "eager-bf16": Step()}
    monkeypatch.setattr(
        beside, "build_calls", lambda point, device: ({"denoise_step": sides[point.recipe.name]}, 0)
    )
    point, counts = counted()
    base = load_point("tiny", "tiny-image", "eager-bf16")
    measured, against = measure_against(
        Pair(point, base, counts, counts), CUDA, clock, PLAN, prior={}, on_round=lambda *_: None
    )
    timings, _, telemetry = measured.readings
    assert {name: step.calls for name, step in sides.items()} == {
        "eager-bf16-chunks": 3,
        "eager-bf16": 3,
    }
    assert timings["denoise_step"].n == against.timings["denoise_step"].n == 2
    assert telemetry["denoise_step"].energy.calls == 2
    assert against.divergence.identical
    assert against.in_turns


def test_the_counter_that_fails_in_one_window_of_two_costs_that_one(nvml):
    import pynvml

    from bench.measure.timing.sampling import sample

    fake, reads = nvml(), []

    def sometimes(handle):
        reads.append(1)
        if len(reads) > 2:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return round(fake.joules * 1e3)

    fake.broken["nvmlDeviceGetTotalEnergyConsumption"] = sometimes
    clock, watch = FakeClock(STEP_S, fake, STEP_J), Monitor(Card("1234"), None, 3.35e12)
    timing = sample(lambda: watch.timed("s", lambda: clock.time(lambda: None)), PLAN, clock.now)
    seen = watch.finish("s", len(timing.warmup_s), lambda: None, clock)
    assert (timing.n, seen.energy.calls, seen.energy.energy_j) == (2, 1, STEP_J)
    assert "energy" not in seen.missing
    assert clock.t == 3 * STEP_S
    assert watched(nvml(), seconds=STEP_S).energy.calls == 1
