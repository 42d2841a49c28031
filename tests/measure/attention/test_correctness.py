"""A point whose attention is not right at its own size is an error, with the reading beside it; a
right one says how right."""

import contextlib
import json

import pytest
import torch
import torch.nn.functional as F

from bench.core.load import load, load_point
from bench.core.specs.suite import Suite
from bench.measure.attention import correctness
from bench.measure.attention.correctness import (
    Attended,
    Check,
    WrongNumbers,
    checked,
    compared,
    correctness_of,
    tolerance,
)
from bench.measure.points.build import build_calls, count_stages
from bench.measure.points.single import measure_point
from bench.measure.timing.clock import clock_for
from bench.measure.worker.failures import classify, context_survives
from bench.measure.worker.jobs import Session, answer
from bench.measure.worker.process import JobFailed
from bench.measure.worker.protocol import MeasurePoint, read_request
from bench.results.records import Correctness
from bench.results.store import Store
from bench.run.jobs import suite_jobs
from bench.run.runner import Runner
from models import kernels
from models.dit.windowed import WindowPlan, tiled_windows
from support.plans import PLAN
from support.records import environment

CPU = torch.device("cpu")
TWO_CALLS = PLAN.model_copy(update={"min_samples": 2, "max_samples": 2, "max_s": 0.1})


def operands(*, batch=2, heads=3, queries=40, keys=50, size=16, dtype=torch.float32):
    g = torch.Generator().manual_seed(1)
    return [
        torch.randn(batch, heads, n, size, generator=g).to(dtype) for n in (queries, keys, keys)
    ]


def measured(point, plan=TWO_CALLS):
    measure_point(
        point, count_stages(point), CPU, clock_for(CPU), plan, prior={}, on_round=lambda *_: None
    )
    return correctness_of(point)


@pytest.mark.parametrize(
    "case", ["plain", "causal", "truths", "added", "shared keys", "scaled", "strided"]
)
def test_the_reference_is_what_sdpa_computes(case):
    q, k, v = operands(keys=40 if case == "causal" else 50)
    g = torch.Generator().manual_seed(2)
    options, told = {}, {}
    if case == "causal":
        options, told = {"is_causal": True}, {"causal": True}
    elif case == "truths":
        mask = torch.rand(2, 1, 40, 50, generator=g) < 0.5
        mask[0, 0, 3] = False  # a row that sees nothing is left out
        options, told = {"attn_mask": mask}, {"mask": mask}
    elif case == "added":
        mask = torch.randn(40, 50, generator=g)
        options, told = {"attn_mask": mask}, {"mask": mask}
    elif case == "shared keys":
        k, v = k[:, :1], v[:, :1]
        options = {"enable_gqa": True}
    elif case == "scaled":
        options = told = {"scale": 0.7}
    elif case == "strided":
        q, k, v = torch.randn(2, 40, 3, 3, 16, generator=g).permute(2, 0, 3, 1, 4).unbind(0)
    out = F.scaled_dot_product_attention(q, k, v, **options)
    read = compared(Attended(q, k, v, out, **told), 1e-3)
    assert read.finite
    assert read.relative_error < 1e-5
    assert (read.rows < 240) == (case == "truths")
    assert read.tokens == k.shape[2]
    off = compared(Attended(q, k, v, out.roll(1, dims=2), **told), 1e-3)
    assert off.relative_error > 0.1  # rows in the wrong place


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_tolerance_is_wide_for_rounding_and_narrow_for_faults(dtype):
    q, k, v = operands(queries=512, keys=2048, size=64, dtype=dtype)
    names = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}
    allowed = tolerance(names[dtype], "auto")
    out = F.scaled_dot_product_attention(q, k, v)
    assert compared(Attended(q, k, v, out), allowed).relative_error < allowed / 2
    missing = F.scaled_dot_product_attention(
        q, k, torch.cat([v[:, :, :1900], torch.zeros_like(v[:, :, 1900:])], dim=2)
    )
    assert (
        compared(Attended(q, k, v, missing), allowed).relative_error > 3 * allowed
    )  # 7 % of the values read as zero


def test_eight_bit_kernels_and_tf32_may_be_further_off():
    assert tolerance("bf16", "sage") == tolerance("fp16", "cudnn-fp8") == 0.15
    assert tolerance("tf32", "auto") == tolerance("fp16", "flash") == 4e-3


def test_windows_are_compared_over_the_keys_that_they_see():
    plan = WindowPlan((4, 6, 8), (1, 1, 1), (2, 2, 2), CPU)
    g = torch.Generator().manual_seed(3)
    q, k, v = torch.randn(3, 1, 2, 192, 16, generator=g).unbind(0)
    out = tiled_windows(q, k, v, plan)
    call = correctness._by_windows(out, q, k, v, plan)
    assert compared(call, 1e-3).relative_error < 1e-5
    dense = Attended(q, k, v, F.scaled_dot_product_attention(q, k, v), seen_by=call.seen_by)
    assert compared(dense, 1e-3).relative_error > 0.1


@pytest.mark.parametrize(
    ("model", "workload", "stages"),
    [
        ("tiny", "tiny-clip", ("denoise_step", "vae_decode")),
        ("tiny-factorised", "tiny-clip", ("denoise_step",)),
        ("tiny-joint", "tiny-clip", ("denoise_step", "train_step")),
        ("tiny-cross", "tiny-clip", ("train_step",)),
        ("tiny-windowed", "tiny-clip", ("denoise_step",)),
        ("tiny-masked", "tiny-extend", ("denoise_step",)),
        ("tiny-ar", "tiny-clip", ("prefill", "decode_token")),
        ("wan-tiny", "tiny-clip", ("denoise_step",)),
    ],
)
def test_every_kind_of_model_is_looked_into(model, workload, stages):
    point = load_point(model, workload, "eager-fp32", stages=stages)
    read = measured(point)
    assert read.finite
    assert read.relative_error < 1e-4
    assert read.rows >= 64
    assert correctness_of(point) is None  # asked for once


def test_a_point_without_a_denoiser_is_not_looked_into():
    assert measured(load_point("tiny", "tiny-clip", "eager-fp32", stages=("vae_decode",))) is None


def test_no_call_is_made_for_it_and_the_names_are_put_back(monkeypatch):
    point, made = load_point("tiny", "tiny-clip", "eager-fp32", stages=("denoise_step",)), []
    before = kernels.attention, F.scaled_dot_product_attention
    calls, _ = build_calls(point, CPU)
    step = calls["denoise_step"]
    calls = checked(point, {"denoise_step": lambda: (made.append(1), step())[1]})
    with torch.inference_mode():
        calls["denoise_step"]()
        calls["denoise_step"]()
    assert len(made) == 2
    assert (kernels.attention, F.scaled_dot_product_attention) == before
    assert correctness_of(point).finite


def zero_past(limit):
    """An attention kernel that reads values past so many elements from the first as zeros, as
    32-bit offsets may."""
    whole = kernels.attention

    def attention(q, k, v):
        row = torch.arange(v.shape[2]) * v.stride(2)
        return whole(q, k, torch.where((row < limit)[:, None], v, torch.zeros_like(v)))

    return attention


@pytest.mark.parametrize("fault", ["values", "rows", "nan"])
def test_a_wrong_kernel_ends_the_point_before_any_sample(monkeypatch, fault):
    point = load_point("tiny", "tiny-clip", "eager-fp32", stages=("denoise_step",))
    counts, right, rounds = count_stages(point), kernels.attention, []
    faults = {
        "values": zero_past(
            100 * 3 * point.model.denoiser.width
        ),  # the view's rows are 3 widths apart
        "rows": lambda q, k, v: torch.cat(
            [right(q, k, v)[:, :, :150], torch.zeros_like(q[:, :, 150:])], dim=2
        ),
        "nan": lambda q, k, v: right(q, k, v).fill_(torch.nan),
    }
    monkeypatch.setattr(kernels, "attention", faults[fault])
    with pytest.raises(WrongNumbers) as caught:
        measure_point(
            point,
            counts,
            CPU,
            clock_for(CPU),
            TWO_CALLS,
            prior={},
            on_round=lambda *round_: rounds.append(round_),
        )
    assert rounds == []
    read = caught.value.correctness
    if fault == "nan":
        assert (read.finite, read.relative_error) == (False, None)
        assert (
            f"wrong numbers: attention over {point.model.tokens(point.workload)} keys gives numbers"
            " that are not finite" in str(caught.value)
        )
    else:
        assert read.relative_error > 0.1 > read.tolerance
        assert "off a float64 reference in 256 random rows" in str(caught.value)
    outcome, line = classify(caught.value)
    assert (outcome, line) == ("error", str(caught.value))
    assert context_survives(caught.value)  # the next point needs no fresh process


def test_an_output_that_is_not_finite_is_an_error_though_attention_was_right():
    point = load_point("tiny", "tiny-clip", "eager-fp32", stages=("denoise_step",))
    calls, _ = build_calls(point, CPU)
    step = calls["denoise_step"]
    spoilt = checked(
        point, {"denoise_step": lambda: step().index_fill_(1, torch.tensor([0]), torch.inf)}
    )
    with (
        torch.inference_mode(),
        pytest.raises(WrongNumbers, match="of the stage's output are not finite") as caught,
    ):
        spoilt["denoise_step"]()
    assert caught.value.correctness.finite is False
    assert caught.value.correctness.relative_error < 1e-4


def test_the_record_of_a_wrong_point_is_an_error_with_its_reading(tmp_path, micro_suite):
    read = Correctness(rows=256, tokens=184_320, relative_error=0.5, finite=True, tolerance=0.02)

    class Worker:
        environment = environment()

        def run(self, job, timeout_s, on_round):
            raise JobFailed("error", "wrong numbers: ...", read)

    suite = load(Suite, str(micro_suite))
    with Store(tmp_path / "result") as store:
        record = Runner(suite, Worker(), store).alone(suite_jobs(suite)[1])
    assert (record.outcome, record.correctness, record.timings) == ("error", read, {})


def test_a_compiled_point_runs_eagerly_up_to_its_first_attention(monkeypatch):
    """One block of it: what is compiled afterwards was not looked into, nor made slower."""
    point = load_point("tiny", "tiny-clip", "compile-regional-fp32", stages=("denoise_step",))
    calls, _ = build_calls(
        load_point("tiny", "tiny-clip", "eager-fp32", stages=("denoise_step",)), CPU
    )
    attended, right = [], kernels.attention
    monkeypatch.setattr(
        kernels, "attention", lambda q, k, v: (attended.append(q.shape), right(q, k, v))[1]
    )
    after = checked(point, calls)
    assert len(attended) == 1
    assert correctness_of(point).tokens == point.model.tokens(point.workload)
    check = Check(point, 1e-3)
    with torch.inference_mode():
        after["denoise_step"]()
    assert check.called is False
    assert len(attended) > 2


def test_the_worker_says_it_of_each_point(tmp_path, micro_suite):
    suite = load(Suite, str(micro_suite))
    point = suite_jobs(suite)[1].point
    request = MeasurePoint(point=point, sampling=TWO_CALLS)
    sent = json.loads(json.dumps(request.model_dump(mode="json")))
    reply = answer(read_request(sent), Session(CPU, clock_for(CPU)))
    assert reply.correctness.tokens == point.model.tokens(point.workload)
    assert reply.correctness_missing is None


def test_an_attention_that_a_recipe_puts_in_sdpas_place_is_looked_into(monkeypatch):
    """It is put there within the stage's call, after the looking began; a public model calls SDPA
    by its name."""
    sdpa = F.scaled_dot_product_attention

    @contextlib.contextmanager
    def attention_by(other):
        F.scaled_dot_product_attention = other
        try:
            yield
        finally:
            F.scaled_dot_product_attention = sdpa

    monkeypatch.setattr(kernels, "attention_by", attention_by, raising=False)
    point = load_point("tiny", "tiny-clip", "eager-fp32", stages=("denoise_step",))
    q, k, v = operands()

    def step(other):
        def call():
            with kernels.attention_by(other):
                return F.scaled_dot_product_attention(q, k, v)

        return checked(point, {"denoise_step": call})["denoise_step"]()

    step(sdpa)
    assert correctness_of(point).tokens == 50
    with pytest.raises(WrongNumbers):
        step(lambda q, k, v: sdpa(q, k, v).roll(1, dims=2))
    assert F.scaled_dot_product_attention is sdpa
    assert kernels.attention_by is attention_by


def test_what_else_a_call_says_of_itself_is_still_there():
    point = load_point("tiny", "tiny-clip", "eager-fp32", stages=("denoise_step",))

    def call():
        return torch.zeros(1)

    call.compiled = True
    assert checked(point, {"denoise_step": call})["denoise_step"].compiled is True
