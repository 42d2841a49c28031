"""The worker and the doctor on a CUDA card that is a fake."""

import io
import json

import pytest
import torch

from bench.core.specs.point import Point
from bench.core.specs.suite import Sampling
from bench.measure.errors import OutOfMemory
from bench.measure.probes import rates as node_rates
from bench.measure.worker.serve import serve
from support.measure.fake_cuda import card
from support.measure.harness import CardClock, point

pytestmark = [
    pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor"),
    pytest.mark.usefixtures("a_quarter_of_a_second", "without_values"),
]


PLAN = Sampling(target_relative_half_width=0.5, min_samples=2, max_samples=3, max_s=0.5)


EVENT_S = 0.25


STAGES = ("denoise_step", "vae_decode", "vae_encode", "text_encode")


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
