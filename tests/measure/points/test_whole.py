"""Cold start and the whole video in one go; the baseline's own divergence."""

import pytest
import torch

from bench.core.load import load_point
from bench.measure.points.build import count_stages
from bench.measure.points.single import measure_point
from bench.measure.points.whole import MAX_VIDEO_S, cold_start, end_to_end
from bench.measure.timing.clock import CpuClock
from bench.measure.timing.sampling import summarise
from support.plans import PLAN

CPU = torch.device("cpu")
ALL = ("denoise_step", "vae_decode", "text_encode")


def timing(seconds, warmup=(3.0, 1.0)):
    return summarise([seconds] * 7, list(warmup), "converged", True)


class Clock(CpuClock):
    def time(self, call):
        call()
        return 12.5


def test_the_rest_is_what_no_stage_explains():
    point = load_point("tiny", "tiny-video", "eager-fp32", {"workload.steps": 10}, ALL)
    timings = {"denoise_step": timing(1.0), "vae_decode": timing(1.5), "text_encode": timing(0.25)}
    made, missing = end_to_end(point, count_stages(point), {"video": int}, timings, Clock(), 10.0)
    assert missing is None
    # ten steps, one decode, and two prompts under guidance
    assert made.parts_s == {"denoise_step": 10.0, "vae_decode": 1.5, "text_encode": 0.5}
    assert made.rest_s == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("timings", "said"),
    [
        ({"denoise_step": timing(1.0)}, "vae_decode, text_encode is missing"),
        (
            {s: timing(MAX_VIDEO_S) for s in ALL},
            "over 60 s",
        ),
    ],
)
def test_why_there_is_none(timings, said):
    point = load_point("tiny", "tiny-clip", "eager-fp32", {}, ALL)
    made, missing = end_to_end(point, count_stages(point), {"video": int}, timings, Clock(), 10.0)
    assert made is None
    assert said in missing


def test_a_first_call_is_without_its_check_and_with_its_compilation():
    class Checked:
        check_s = 2.0

    calls = {"denoise_step": Checked(), "vae_decode": int}
    compiled = timing(1.0).model_copy(update={"compile_s": 40.0})
    cold = cold_start(0.5, calls, {"denoise_step": timing(1.0), "vae_decode": compiled})
    assert cold.first_s == {"denoise_step": 1.0, "vae_decode": 40.0}


def test_a_real_point_has_both_and_its_video_is_that_of_generate():
    point = load_point("tiny", "tiny-image", "eager-fp32", {"workload.steps": 2}, ALL)
    measured = measure_point(
        point, count_stages(point), CPU, CpuClock(), PLAN, prior={}, on_round=lambda *_: None
    )
    assert set(measured.cold_start.first_s) == set(ALL)
    assert measured.cold_start.build_s > 0
    assert measured.end_to_end.video_s > 0
    assert set(measured.end_to_end.parts_s) == set(ALL)


def test_the_video_call_is_the_pipelines_own_loop():
    from bench.measure.points.build import build_calls

    point = load_point("tiny", "tiny-image", "eager-fp32", {"workload.steps": 3}, ALL)
    calls, _ = build_calls(point, CPU)
    stages = calls["video"].__wrapped__.__self__
    with torch.inference_mode():
        made = calls["video"]()
        generated = stages.pipeline.generate(
            stages.inputs.latents,
            3,
            stages.inputs.condition,
            point.workload.frames,
            stages.inputs.unconditional if point.workload.guidance == "cfg" else None,
            5.0 if point.workload.guidance == "cfg" else 1.0,
        )
    assert torch.allclose(made, generated, atol=1e-5 * float(generated.abs().max()))


def test_the_baseline_against_itself():
    from bench.measure.points.build import build_calls
    from bench.measure.points.divergence import _KNOWN, noise_of

    _KNOWN.clear()
    point = load_point("tiny", "tiny-image", "eager-fp32", {"workload.steps": 2})
    call = build_calls(point, CPU)[0]["denoise_step"]
    with torch.inference_mode():
        latents = call().float().cpu()
        noise, missing = noise_of(point, call, latents, CPU, 0.01)
        again = call().float().cpu()
    assert missing is None
    assert noise.rerun.identical  # a CPU's kernels are deterministic
    assert len(noise.seeds) == 3  # pairs of three seeds
    assert all(0.5 < d.relative_l2 < 2.5 for d in noise.seeds)  # other noise: sqrt 2 apart
    assert torch.equal(latents, again)  # the inputs are back
    known, _ = noise_of(point, call, latents, CPU, 0.01)
    assert known is noise


def test_long_baselines_are_not_run_again():
    from bench.measure.points.divergence import _KNOWN, noise_of

    _KNOWN.clear()
    point = load_point("tiny", "tiny-image", "eager-fp32", {"workload.steps": 2})
    noise, missing = noise_of(point, lambda: None, torch.zeros(1), CPU, 100.0)
    assert noise is None
    assert missing == "three more outputs would take 300 s"
