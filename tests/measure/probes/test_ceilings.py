"""Ceilings: a probe that fails costs itself alone, and what does not fit a card is not tried on
it."""

import pytest
import torch

from bench.core.specs.suite import Sampling
from bench.measure.probes import ceilings
from bench.measure.probes.ceilings import measure_ceilings, planned_probes
from bench.measure.probes.kernels import SIZES, Sizes, planned
from bench.measure.probes.operands import Arrays
from bench.measure.timing.clock import CpuClock
from models import kernels
from support.plans import PLAN

CPU, GB = torch.device("cpu"), 10**9
ONCE = Sampling(target_relative_half_width=0.9, min_samples=2, max_samples=2, max_s=0.05)
SMALL = Sizes(
    gemm=((64, 64, 64), (128, 128, 128)),
    attention=((1, 2, 64, 16), (1, 2, 256, 16)),
    long_attention=((1, 2, 512, 16),),
    conv3d=((8, 3, 8, 8),),
    small_conv3d=(),
    memory_bytes=(2**12, 2**14, 2**16),
    activation_bytes=(2**12,),
    fresh_bytes=2**12,
)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setitem(SIZES, "cpu", SMALL)
    monkeypatch.setattr(ceilings, "room", lambda device: None)


def measure(*recipes, rounds=None):
    return measure_ceilings(
        CPU,
        CpuClock(),
        ONCE,
        list(recipes or [("fp32", "auto")]),
        prior={},
        on_round=lambda key, samples: rounds is not None and rounds.append(key),
    )


def kinds(probes):
    return [(p.kind, p.dtype) for p in probes]


def test_every_probe_is_measured_where_all_fit(small):
    rounds = []
    probes, telemetry, left_out = measure(("fp32", "auto"), ("fp16", "auto"), rounds=rounds)
    assert left_out == []
    assert (
        len(probes)
        == len(planned_probes("cpu", [("fp32", "auto"), ("fp16", "auto")], None))
        == len(set(rounds))
    )
    assert set(telemetry) == {p.kind for p in probes}
    tokens = [(p.dtype, p.shape["tokens"]) for p in probes if p.kind == "attention"]
    assert tokens == [
        ("fp32", 64),
        ("fp32", 256),
        ("fp16", 64),
        ("fp16", 256),
        ("fp16", 512),
    ]  # long: 16 bits alone


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 12 GiB\nmore"),
        RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"),
        ValueError("a bug"),
    ],
)
def test_a_probe_that_fails_costs_itself_alone(small, monkeypatch, error):
    def failing(*_, **__):
        raise error

    monkeypatch.setattr(kernels, "conv3d", failing)
    probes, _, left_out = measure()
    assert left_out == [f"conv3d fp32 8x3x8x8: {str(error).splitlines()[0]}"]
    assert len(probes) == len(planned_probes("cpu", [("fp32", "auto")], None)) - 1
    assert "conv3d" not in dict(kinds(probes))


def test_what_was_measured_before_the_context_broke_is_kept(small, monkeypatch):
    def failing(*_, **__):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(kernels, "conv3d", failing)
    monkeypatch.setattr(ceilings, "context_is_whole", lambda device: False)
    probes, telemetry, left_out = measure()
    assert kinds(probes) == [("gemm", "fp32")] * 2
    assert set(telemetry) == {"gemm"}
    assert left_out[-1] == "that broke the CUDA context: the probes after it were left out"


def test_where_none_can_be_measured_the_first_error_says_why(small, monkeypatch):
    def failing(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(ceilings, "_timed", failing)
    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        measure()


def test_a_wrong_attention_kernel_has_no_ceiling(small, monkeypatch):
    right = kernels.attention
    monkeypatch.setattr(kernels, "attention", lambda q, k, v: right(q, k, v).roll(1, dims=2))
    probes, _, left_out = measure()
    assert "attention" not in dict(kinds(probes))
    assert all("wrong numbers" in why for why in left_out if why.startswith("attention"))
    assert len(left_out) == 2


def test_a_long_attention_that_would_take_too_long_is_not_tried(small, monkeypatch):
    monkeypatch.setattr(ceilings, "LONGEST_CALL_S", 0.0)
    probes, _, left_out = measure(("fp16", "auto"))
    (why,) = left_out
    assert why.startswith("attention fp16 auto 1x2x512x16: would take ")
    assert max(p.shape["tokens"] for p in probes if p.kind == "attention") == 256


def test_the_long_attention_is_sampled_a_few_times_and_the_ladder_short():
    probes = {p.key: p for p in planned(torch.device("cuda"), [("bf16", "cudnn")], 0, None)[0]}
    plan = PLAN.model_copy(update={"min_samples": 7, "max_samples": 100, "max_s": 2.0})

    def sampled(key):
        p = probes[key].plan(plan)
        return p.min_samples, p.max_samples, p.max_s

    assert sampled("attention/bf16/cudnn/1x40x184320x128") == (3, 5, 1.0)
    assert sampled("attention/bf16/cudnn/1x40x32768x128") == (7, 100, 2.0)
    assert sampled(f"copy/fp32/{2**32}") == (7, 100, 2.0)
    assert sampled(f"copy/fp32/{2**31}") == sampled(f"copy/bf16/{2**32}") == (7, 15, 0.1)
    assert (
        probes["attention/bf16/cudnn/1x40x184320x128"].needed == 4 * 40 * 184_320 * 128 * 2
    )  # 7.5 GB


@pytest.mark.parametrize(
    ("free", "largest", "longest"),
    [
        (None, 2**32, 184_320),
        (78 * GB, 2**32, 184_320),
        (23 * GB, 2**31, 184_320),
        (11 * GB, 2**30, 32_768),
        (7 * GB, 2**30, 32_768),
        (3 * GB, 2**28, 32_768),
        (1 * GB, 2**27, 4096),
    ],
)
def test_arrays_and_operands_follow_the_memory_that_is_free(free, largest, longest):
    recipes = [("bf16", "auto"), ("fp32", "auto")]
    probes = planned_probes("cuda", recipes, free)

    def most(kind, dtype, what):
        return max(p["shape"][what] for p in probes if (p["kind"], p["dtype"]) == (kind, dtype))

    assert most("copy", "fp32", "bytes") == most("copy", "bf16", "bytes") == largest
    assert most("attention", "bf16", "tokens") == longest
    if free is not None:
        assert 3 * largest <= free / 2
        words = " ".join(planned(torch.device("cuda"), recipes, 0, free)[1])
        assert (f"arrays over {largest} bytes" in words) == (largest < 2**32)
    needed_by_a_calibration = {"gemm", "attention", "conv3d", "activation", "copy"}
    assert needed_by_a_calibration <= {p["kind"] for p in probes}


def test_the_largest_copy_that_fits_is_the_ceiling():
    probes = {p.key: p for p in planned(torch.device("cuda"), [("fp32", "auto")], 0, 7 * GB)[0]}
    assert probes[f"copy/fp32/{2**30}"].sampled == "well"
    assert probes[f"copy/fp32/{2**29}"].sampled == "short"
    assert f"copy/fp32/{2**31}" not in probes


def test_math_attention_needs_room_for_all_scores():
    tokens = [
        p["shape"]["tokens"]
        for p in planned_probes("cuda", [("bf16", "math")], 78 * GB)
        if p["kind"] == "attention"
    ]
    assert tokens == [4096]  # 16,384 tokens: 43 GB of scores and softmax in 40 heads


def test_three_arrays_of_one_dtype_lie_in_memory_at_a_time():
    arrays = Arrays(2**14, CPU, 0)
    three = arrays.of("fp32")
    assert [a.nbytes for a in three] == [2**14] * 3
    assert arrays.of("fp32") is three
    assert {a.dtype for a in arrays.of("bf16")} == {torch.bfloat16}
    assert arrays.of("fp32") is not three
