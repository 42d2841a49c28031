"""The harness on a CUDA card that is a fake: each way of measuring from end to end, so that no line
of its CUDA branches runs for the first time on a rented card.  Time is the fake's: every event is a
quarter of a second after the one before."""

import dataclasses

import pytest
import torch

from bench.core.specs.suite import Sampling
from bench.measure.device.environment import choose_device, describe
from bench.measure.points.against import Pair, measure_against
from bench.measure.points.build import count_stages
from bench.measure.points.single import measure_point
from bench.measure.points.together import measure_together
from bench.measure.points.versus import measure_peak
from bench.measure.probes import kernels as probes
from bench.measure.probes.ceilings import measure_ceilings, planned_probes
from bench.measure.timing.check import check_timer
from support.measure.fake_cuda import CUDA, card
from support.measure.harness import CardClock, point

pytestmark = [
    pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor"),
    pytest.mark.usefixtures("a_quarter_of_a_second", "without_values"),
]


PLAN = Sampling(target_relative_half_width=0.5, min_samples=2, max_samples=3, max_s=0.5)


EVENT_S = 0.25


STAGES = ("denoise_step", "vae_decode", "vae_encode", "text_encode")


def quiet(*args: object) -> None: ...


def test_a_point():
    p = point()
    counts = count_stages(p)
    rounds: list[tuple[str, list[float]]] = []
    with card() as device:
        timings, memory, telemetry = measure_point(
            p,
            counts,
            device,
            CardClock(device),
            PLAN,
            prior={},
            on_round=lambda stage, samples: rounds.append((stage, samples)),
        ).readings
    assert (
        set(timings)
        == set(telemetry)
        == set(memory.by_stage)
        == set(STAGES)
        == {stage for stage, _ in rounds}
    )
    step = timings["denoise_step"]
    assert step.n >= 2
    assert step.median_s == pytest.approx(EVENT_S)
    assert step.launch is not None
    assert (step.launch.replay_s is None) == (step.launch.reason is not None)
    seen = telemetry["denoise_step"]
    assert seen.reason is None
    assert seen.energy is not None
    assert seen.energy.energy_j > 0
    assert memory.peak_allocated > 0
    assert memory.by_stage["denoise_step"].device_used > 0


@pytest.mark.parametrize("recipe", ["compile-regional-bf16", "eager-tf32", "eager-bf16-cudnn"])
def test_a_point_under_a_recipe(recipe):
    p = point(recipe, ("denoise_step",))
    counts = count_stages(p)
    with card() as device:
        timings, _, _ = measure_point(
            p,
            counts,
            device,
            CardClock(device),
            PLAN,
            prior={"denoise_step": [EVENT_S]},
            on_round=quiet,
        ).readings
    assert (timings["denoise_step"].compile_s is not None) == recipe.startswith("compile")
    assert timings["denoise_step"].samples_s[0] == EVENT_S


@pytest.mark.parametrize("free", [79 * 2**30, 2**20], ids=["room", "crowded"])
def test_a_point_against_its_baseline(free):
    p, base = (
        point("batched-guidance-bf16", ("denoise_step",)),
        point("eager-bf16", ("denoise_step",)),
    )
    with card(free) as device:
        measured, beside = measure_against(
            Pair(p, base, count_stages(p), count_stages(base)),
            device,
            CardClock(device),
            PLAN,
            prior={},
            on_round=quiet,
        )
        timings, memory, telemetry = measured.readings
    assert beside.in_turns == (free > 2**30)
    assert (beside.reason is None) == beside.in_turns
    assert (
        set(timings)
        == set(telemetry)
        == set(beside.timings)
        == set(memory.by_stage)
        == {"denoise_step"}
    )


def test_points_together():
    points = [point(stages=("denoise_step", "vae_decode")), point("eager-fp32", ("denoise_step",))]
    counts = [count_stages(p) for p in points]
    with card() as device:
        measured = measure_together(
            points, counts, device, CardClock(device), PLAN, prior=[{}, {}], on_round=quiet
        )
    assert [set(timings) for timings, _, _ in (m.readings for m in measured)] == [
        {"denoise_step", "vae_decode"},
        {"denoise_step"},
    ]
    for _, memory, _ in (m.readings for m in measured):
        assert memory.peak_allocated > 0
        assert "measured in turns" in memory.reason


def test_the_ceilings(monkeypatch):
    recipes = [("bf16", "auto"), ("bf16", "cudnn"), ("tf32", "auto")]
    sizes = probes.SIZES["cuda"]
    few = {
        name: getattr(sizes, name)[:2]
        for name in ("gemm", "attention", "conv3d", "activation_bytes")
    }
    monkeypatch.setitem(
        probes.SIZES, "cuda", dataclasses.replace(sizes, **few, memory_bytes=(2**18, 2**22))
    )
    with card() as device:
        measured = measure_ceilings(
            device, CardClock(device), PLAN, recipes, prior={}, on_round=quiet
        )
    done, telemetry, left_out = measured
    assert all(
        "184320" in why for why in left_out
    )  # by this clock it would take half a minute a call
    assert {p.kind for p in done} >= {
        "gemm",
        "attention",
        "conv3d",
        "copy",
        "triad",
        "read",
        "write",
        "activation",
    }
    assert {p.backend for p in done if p.kind == "attention"} == {"auto", "cudnn"}
    assert set(telemetry) <= {p.kind for p in done}
    assert planned_probes("cuda", recipes, None)


def test_the_clock_is_checked():
    with card() as device:
        a = torch.randn(64, 64, device=device)
        checked = check_timer(lambda: a @ a, device, CardClock(device), 3)
    assert checked.harness_s > 0
    assert checked.bare_loop_s > 0


def test_the_environment_and_a_peak():
    p = point(stages=("denoise_step",))
    with card():
        device = choose_device("cuda")
        assert device == CUDA == choose_device(None)
        here = describe(device)
        peak = measure_peak(p, "denoise_step", device)
    assert (here.gpu, here.device, here.driver) == ("h100-sxm", "cuda", "580.65")
    assert here.device_uuid_hash
    assert here.memory_bytes == 80 * 2**30
    assert peak["source"] == "CUDA allocator"
