"""The harness on a CUDA card that is a fake: each way of measuring from end to end, so that no line
of its CUDA branches runs for the first time on a rented card.  Time is the fake's: every event is a
quarter of a second after the one before."""

import dataclasses
import importlib.util
import io
import json

import pytest
import torch

from bench.core.load import load_point
from bench.core.specs.point import Point
from bench.core.specs.suite import Sampling
from bench.measure.attention import correctness
from bench.measure.device.environment import choose_device, describe
from bench.measure.errors import OutOfMemory
from bench.measure.points import against
from bench.measure.points.against import Pair, measure_against
from bench.measure.points.build import count_stages
from bench.measure.points.single import measure_point
from bench.measure.points.together import measure_together
from bench.measure.points.versus import measure_peak
from bench.measure.probes import kernels as probes
from bench.measure.probes import operands
from bench.measure.probes import rates as node_rates
from bench.measure.probes.ceilings import measure_ceilings, planned_probes
from bench.measure.timing.check import check_timer
from bench.measure.timing.clock import CudaClock
from bench.measure.worker.serve import serve
from bench.results.records import Correctness, Divergence
from support.fake_cuda import CUDA, Event, card

pytestmark = pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
PLAN = Sampling(target_relative_half_width=0.5, min_samples=2, max_samples=3, max_s=0.5)
SIZES = {
    "workload.frames": 5,
    "workload.height": 32,
    "workload.width": 32,
    "workload.steps": 2,
    "denoiser.depth": 2,
}
EVENT_S = 0.25
STAGES = ("denoise_step", "vae_decode", "vae_encode", "text_encode")


class CardClock(CudaClock):
    """The harness's clock, whose limits too go by the card's time."""

    def now(self) -> float:
        return Event.now_ms / 1e3


@pytest.fixture(autouse=True)
def _a_quarter_of_a_second(monkeypatch, nvml):
    """Events are 250 ms apart, NVML has a card that uses energy, and Triton is installed."""
    record = Event.record

    def later(self, stream=None):
        Event.now_ms += 249.0
        record(self, stream)

    monkeypatch.setattr(Event, "record", later)
    fake = nvml(
        nvmlSystemGetDriverVersion=lambda: "580.65", nvmlSystemGetCudaDriverVersion=lambda: 13000
    )
    energy = fake._nvmlDeviceGetTotalEnergyConsumption

    def burn(handle):
        fake.joules += 100.0
        return energy(handle)

    fake._nvmlDeviceGetTotalEnergyConsumption = burn
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: name if name == "triton" else find(name, *rest),
    )


@pytest.fixture(autouse=True)
def _without_values(monkeypatch):
    """A fake card has no numbers to compare: what is handed to the comparison is looked at."""

    def compared(call: correctness.Attended, allowed: float) -> Correctness:
        assert call.q.device == call.k.device == call.v.device == call.out.device == CUDA
        return Correctness(
            rows=1, tokens=call.k.shape[2], relative_error=0.0, finite=True, tolerance=allowed
        )

    for module in (correctness, operands):
        monkeypatch.setattr(module, "compared", compared)
    monkeypatch.setattr(correctness.Check, "output", lambda check, out: None)
    same = Divergence(relative_l2=0.0, cosine=1.0, psnr_db=None, identical=True, samples=1)
    monkeypatch.setattr(against, "divergence_of", lambda ours, theirs: same)


def point(recipe: str = "eager-bf16", stages: tuple[str, ...] = STAGES, **more: object) -> Point:
    return load_point("tiny", "tiny-video", recipe, {**SIZES, **more}, stages)


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
        )
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
        )
    assert (timings["denoise_step"].compile_s is not None) == recipe.startswith("compile")
    assert timings["denoise_step"].samples_s[0] == EVENT_S


@pytest.mark.parametrize("free", [79 * 2**30, 2**20], ids=["room", "crowded"])
def test_a_point_against_its_baseline(free):
    p, base = (
        point("batched-guidance-bf16", ("denoise_step",)),
        point("eager-bf16", ("denoise_step",)),
    )
    with card(free) as device:
        timings, memory, telemetry, beside = measure_against(
            Pair(p, base, count_stages(p), count_stages(base)),
            device,
            CardClock(device),
            PLAN,
            prior={},
            on_round=quiet,
        )
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
    assert [set(timings) for timings, _, _ in measured] == [
        {"denoise_step", "vae_decode"},
        {"denoise_step"},
    ]
    for _, memory, _ in measured:
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


def replies(*jobs: dict) -> list[dict]:
    """What the worker answers to jobs on the card, its hello first."""
    events = io.StringIO()
    with card():
        serve(io.StringIO("".join(json.dumps(job) + "\n" for job in jobs)), events, "cuda")
    return [json.loads(line) for line in events.getvalue().splitlines()]


def job(p: Point, **more: object) -> dict:
    return {
        "job": "point",
        "point": p.model_dump(mode="json"),
        "sampling": PLAN.model_dump(mode="json"),
        "prior": {},
        **more,
    }


def test_the_worker(monkeypatch):
    monkeypatch.setattr("bench.measure.timing.clock.CudaClock", CardClock)
    p, base = point("batched-guidance-bf16", ("denoise_step",)), point(stages=("denoise_step",))
    hello, *rest = replies(
        job(p, baseline=base.model_dump(mode="json")), {"job": "count", "point": job(p)["point"]}
    )
    assert hello["environment"]["gpu"] == "h100-sxm"
    done = [event for event in rest if event["event"] == "done"]
    assert len(done) == 2, rest
    assert (
        done[0]["sentinel"]["before_s"] == done[0]["sentinel"]["after_s"] == pytest.approx(EVENT_S)
    )
    assert not done[0]["ends"]
    assert done[0]["against"]["in_turns"]


def test_what_is_slow_on_purpose_or_by_its_torch_says_so(monkeypatch):
    monkeypatch.setattr("bench.measure.timing.clock.CudaClock", CardClock)
    monkeypatch.setenv("LDT_BENCH_TEST_SLOWDOWN", "1.01")
    monkeypatch.setattr(torch, "__version__", "2.9.1")
    answers = replies(job(point(stages=("vae_decode",))), job(point(stages=("denoise_step",))))
    decode, step = (event for event in answers if event["event"] == "done")
    assert "a test hook; torch 2.9.1 runs bfloat16 conv3d without cuDNN" in decode["note"]
    assert "2.9.1" not in step["note"]


def test_the_doctor(monkeypatch, tmp_path):
    monkeypatch.setattr("bench.measure.timing.clock.CudaClock", CardClock)
    for name, value in (("LOAD_S", 0.001), ("LINK_BYTES", 2**20)):
        monkeypatch.setattr(node_rates, name, value)
    _, done, rates = replies(
        {"job": "doctor", "folder": str(tmp_path)}, {"job": "rates", "dtypes": ["bf16", "tf32"]}
    )
    values = done["values"]
    assert values["gemm"]["dtype"] == "bf16"
    assert values["gemm_again_flops_per_s"] == pytest.approx(2 * 8192**3 / EVENT_S)
    assert {
        "host_to_device_bytes_per_s",
        "device_to_host_bytes_per_s",
        "copy_bytes_per_s",
        "torch",
        "driver",
        "gemm_sustained_flops_per_s",
        "load_sm_clock_hz",
        "load_power_w",
    } <= values.keys()
    assert not {"gemm", "load", "nvml", "host_to_device_bytes_per_s"} & done["missing"].keys()
    assert set(rates["gemm_flops_per_s"]) == {"bf16", "tf32"}


@pytest.mark.parametrize(
    ("error", "outcome", "ends"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), "oom", False),
        (OutOfMemory("too large"), "oom", False),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "error", True),
        (RuntimeError("CUDNN_STATUS_ALLOC_FAILED"), "oom", True),
    ],
    ids=["allocator", "checked", "poisoned", "library"],
)
def test_the_worker_ends_with_its_context(monkeypatch, error, outcome, ends):
    """What leaves the context in doubt ends the process: the next point gets a fresh one."""
    monkeypatch.setattr("bench.measure.timing.clock.CudaClock", CardClock)

    def fails(*args, **settings):
        raise error

    monkeypatch.setattr("bench.measure.points.single._measure", fails)
    p = point(stages=("denoise_step",))
    answers = [
        event
        for event in replies(job(p), {"job": "count", "point": job(p)["point"]})
        if event["event"] != "hello"
    ]
    assert (answers[0]["event"], answers[0]["outcome"], answers[0]["ends"]) == (
        "failed",
        outcome,
        ends,
    )
    assert len(answers) == (1 if ends else 2)


def test_the_fake_is_as_strict_as_a_card():
    """Else everything here would pass whatever the code did."""
    with card() as device:
        on_card, on_host = torch.randn(3, device=device), torch.randn(3)
        with pytest.raises(RuntimeError, match="device"):
            on_card + on_host
        with pytest.raises(RuntimeError, match="device"):
            torch.nn.functional.conv3d(
                torch.randn(1, 2, 3, 4, 4, device=device), torch.randn(2, 2, 3, 3, 3)
            )
        with pytest.raises(RuntimeError, match="dtype"):
            torch.nn.functional.conv3d(
                torch.randn(1, 2, 3, 4, 4, device=device),
                torch.randn(2, 2, 3, 3, 3, device=device, dtype=torch.bfloat16),
            )
        with pytest.raises(RuntimeError, match="a generator of cpu"):
            torch.randn(3, device=device, generator=torch.Generator("cpu"))
        for waits in (
            lambda: on_card.sum().item(),
            lambda: bool(on_card.any()),
            lambda: on_card[on_card > 0],
            lambda: on_card.nonzero(),
            lambda: on_card.tolist(),
        ):
            with pytest.raises(RuntimeError):
                waits()
        assert on_host.sum().item() == pytest.approx(float(on_host.sum()))
        assert (on_card + 1).cpu().device.type == "cpu"
    assert torch.randn(2).device.type == "cpu"
