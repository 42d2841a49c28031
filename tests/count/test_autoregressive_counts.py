"""Counts of the auto-regressive model: exact on any shape, and its calls add up to the clip."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.core.errors import UserError
from bench.core.load import load_point
from bench.count.closed import ar as closed
from bench.count.document import count_document
from bench.count.point import count_point
from bench.count.stage import stage_count
from bench.count.trace import trace
from bench.measure.points.single import measure_point
from bench.measure.timing.clock import clock_for
from bench.results.records import PointRecord
from bench.studies.pencil.same_clip import measured_clips, stage_calls
from models.ar.model import AutoregressiveTransformer, decoding_calls
from models.ar.spec import Decoding
from support.models.autoregressive import changed
from support.models.own import CPU
from support.plans import PLAN

META = torch.device("meta")


@st.composite
def configs(draw):
    kv = draw(st.integers(1, 3))
    window = draw(st.integers(1, 4))
    return changed(
        kv_heads=kv,
        num_heads=kv * draw(st.integers(1, 3)),
        gated=draw(st.booleans()),
        window=window,
        overlap=draw(st.integers(0, window - 1)),
        depth=draw(st.integers(1, 3)),
    )


@settings(max_examples=15, deadline=None)
@given(configs(), st.integers(1, 7), st.integers(1, 2), st.booleans())
def test_counters_and_closed_forms_agree_on_any_shape(config, frames, batch, guided):
    with META:
        model = AutoregressiveTransformer(config).bfloat16()
    latents, rows = (
        torch.empty(batch, 5, frames, 2, 3, device=META, dtype=torch.bfloat16),
        batch * (1 + guided),
    )
    prompt = {"prompt": torch.empty(batch, 7, 10, device=META, dtype=torch.bfloat16)}
    calls = decoding_calls(model, latents, prompt, prompt if guided else None, 0)
    plan, expected = config.plan((frames, 2, 3)), closed.stages(config, (frames, 2, 3), batch, rows)
    for stage, call in calls.items():
        traced = trace(call)
        assert traced.flops_by_class() == expected[stage]
        assert traced.torch_flops == sum(expected[stage].values())
        moved = {
            "prefill": closed.prefill_bytes(config, rows, plan, 2),
            "decode_token": closed.decode_bytes(config, rows, plan.cache_length, 2),
            "forward": closed.decode_bytes(config, batch, plan.cache_length, 2),
        }[stage]
        assert stage_count(traced, own=True).bytes_modelled_min == moved
    assert sum(p.numel() for p in model.parameters()) == closed.autoregressive_parameters(config)


@settings(max_examples=60, deadline=None)
@given(configs(), st.integers(1, 12))
def test_the_plan_makes_each_token_once(config, frames):
    """Simulated: every window's calls, one by one."""
    shape, made, read, longest = (frames, 2, 3), 0, 0, 0
    plan = config.plan(shape)
    for held, new in plan.windows:
        made += 1  # the prefill's
        for i in range(1, new):
            made, read = made + 1, read + plan.prompt + held + i
            longest = max(longest, plan.prompt + held + i)
    assert made == config.tokens(shape) == plan.prefill_calls + plan.decode_calls
    assert (plan.attended, plan.context) == (read, max(longest, plan.prompt + 1))
    flops = plan.prefill_calls * sum(closed.prefill_flops(config, 1, plan).values())
    for held, new in plan.windows:
        flops += sum(
            sum(closed.decode_flops(config, 1, plan.prompt + held + i).values())
            for i in range(1, new)
        )
    assert closed.video_flops(config, shape, 1) == flops


def test_videopoet_8b_by_hand():
    """8.02 B parameters; a token of Sora's minute reads all matrices and a cache of 14,332: one
    FLOP a byte."""
    point = load_point("videopoet-8b", "sora-1min-512", "eager-bf16")
    config, plan = point.model.denoiser, point.model.denoiser.plan((360, 64, 64))
    d, f, v = 4096, 11_008, 2**18
    block = 4 * d * d + 3 * d * f
    assert (
        closed.autoregressive_parameters(config)
        == 2 * v * d + 2048 * d + 29 * (block + 2 * d) + d
        == 8_024_993_792
    )
    assert len(plan.windows) == 120
    assert plan.windows[:2] == ((0, 5 * 4096), (2 * 4096, 3 * 4096))
    # The first window of 5 frames and 118 of 3 make 359 frames; the last makes one.
    assert plan.windows[-1] == (2 * 4096, 4096)
    assert plan.decode_calls == 360 * 4096 - 120
    macs = 29 * block + v * d + 29 * 2 * d * plan.cache_length
    assert sum(closed.decode_flops(config, 1, plan.cache_length).values()) == 2 * macs
    assert closed.decode_bytes(config, 1, plan.cache_length, 2) == pytest.approx(2 * macs, rel=1e-3)


def test_count_of_a_point_and_its_document():
    point = load_point("tiny-ar", "tiny-video", "eager-fp32")
    assert point.stages == ("prefill", "decode_token")
    counted = count_point(point)
    document = count_document(point, counted)
    assert len(set(document["cross_check"].values())) == 1
    plan = point.model.denoiser.plan(counted.latent_shape)
    assert document["steps"] == plan.decode_calls == stage_calls(point)["decode_token"]
    assert (
        document["step_flops"]
        == counted.stages["decode_token"].flops
        == 2 * document["forward"]["flops"]
    )  # guided
    made = document["video_flops"] - document["vae_decode_flops"] - document["text_encode_flops"]
    by_mean = sum(n * counted.stages[stage].flops for stage, n in stage_calls(point).items())
    assert made == pytest.approx(by_mean, rel=1e-3)  # the mean length is a whole number
    assert any(path.endswith("head") for path in document["by_module"])


def test_it_is_measured_like_anything_else():
    plan = PLAN.model_copy(update={"min_samples": 2, "max_samples": 2, "max_s": 0.1})
    point = load_point(
        "tiny-ar", "tiny-clip", "eager-fp32", stages=("prefill", "decode_token", "text_encode")
    )
    counts = count_point(point)
    timings, memory, _ = measure_point(
        point, counts, CPU, clock_for(CPU), plan, prior={}, on_round=lambda *_: None
    ).readings
    assert set(timings) == set(point.stages)
    assert memory.weights > 4 * counts.params["denoiser"]


@pytest.mark.parametrize(
    ("model", "stage", "says"),
    [
        ("tiny-ar", "denoise_step", "auto-regressive, which has prefill, decode_token"),
        ("tiny-ar", "train_step", "no stage train_step"),
        ("tiny", "decode_token", "a diffusion model, which has denoise_step"),
    ],
)
def test_a_stage_of_the_other_kind_is_refused(model, stage, says):
    with pytest.raises(UserError, match=says):
        load_point(model, "tiny-clip", "eager-fp32", stages=(stage,))


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"overlap": 5}, "overlap 5: it must be less than window 5"),
        ({"kv_heads": 3}, "num_heads 4 is not a multiple of kv_heads 3"),
        ({"code_bits": 7}, "denoiser.in_channels 7 is not vae.latent_channels 8"),
        ({"head_dim": 7}, "need an even one"),
        ({"text_width": 64}, "denoiser.text_width 64 is not text_encoders.0.width 128"),
        ({"widht": 8}, "did you mean .*width"),
        ({"workload.task": "video-to-video"}, "an auto-regressive model takes text-to-video"),
    ],
)
def test_what_does_not_fit_is_said(overrides, says):
    with pytest.raises(UserError, match=says):
        load_point("tiny-ar", "tiny-clip", "eager-fp32", overrides)


def record(model, **stages):
    """A PointRecord of tiny-clip; stages: seconds of a call."""
    point = load_point(model, "tiny-clip", "eager-fp32", stages=tuple(stages))
    environment = {
        "gpu": "cpu",
        "device": "cpu",
        "device_name": "a",
        "device_uuid_hash": None,
        "driver": None,
        "cuda": None,
        "cudnn": None,
        "torch": "2",
        "python": "3",
        "os": "l",
        "threads": 1,
        "memory_bytes": 1,
        "code_version": "0",
    }

    def timing(s):
        return {
            "samples_s": [s],
            "warmup_s": [],
            "median_s": s,
            "low_s": 0.9 * s,
            "high_s": 1.1 * s,
            "confidence": 0.95,
            "p5_s": s,
            "p25_s": s,
            "p75_s": s,
            "p95_s": s,
            "n": 1,
            "stop": "converged",
            "warmup_settled": True,
        }

    return PointRecord(
        fingerprint=point.fingerprint,
        suite="s",
        started_utc="",
        wall_s=1,
        outcome="ok",
        reason=None,
        environment=environment,
        model=model,
        workload="tiny-clip",
        recipe="eager-fp32",
        point=point.model_dump(mode="json"),
        tokens=1,
        counts=count_point(point).stages,
        timings={s: timing(t) for s, t in stages.items()},
        memory=None,
        telemetry=None,
    )


def test_the_same_clip_both_ways():
    records = [
        record("tiny", denoise_step=0.01),
        record("tiny-ar", prefill=0.1, decode_token=0.002),
        record("tiny-ar", prefill=0.1),
    ]
    clips = measured_clips(records, {"eager-fp32": 3e11}, 1e10)
    assert [c.model for c in clips] == ["tiny", "tiny-ar"]  # the third was not measured in full
    diffusion, tokens = clips
    assert diffusion.seconds.value == pytest.approx(20 * 0.01)
    assert tokens.seconds.value == pytest.approx(
        0.1 + 1279 * 0.002
    )  # 5 x 16 x 16 tokens, the first by the prefill
    assert tokens.seconds.low == pytest.approx(0.9 * tokens.seconds.value)
    assert tokens.seconds.high == pytest.approx(1.1 * tokens.seconds.value)
    assert (diffusion.bound, tokens.bound) == ("compute-bound", "bandwidth-bound")
    assert tokens.flops < diffusion.flops
    assert measured_clips(records[:1], {"eager-fp32": 3e11}, 1e10) == []


def test_a_clip_of_one_token_needs_no_decode_call():
    plan = Decoding(prompt=7, windows=((0, 1),))
    assert (plan.decode_calls, plan.attended, plan.cache_length, plan.context) == (0, 0, 8, 8)
