"""The same code path on a CUDA device.  Run with: python -m pytest -m gpu"""

import json
from pathlib import Path

import pytest
import torch

from bench.core.load import load, load_point
from bench.core.specs.suite import Sampling, Suite
from bench.measure.device.environment import choose_device, describe
from bench.measure.device.telemetry import monitor
from bench.measure.points.build import count_stages
from bench.measure.points.single import measure_point
from bench.measure.timing.clock import CudaClock
from bench.results.store import point_records, read_records
from support.cli import cli

pytestmark = pytest.mark.gpu


def test_micro_suite_on_cuda(micro_suite, tmp_path):
    done = cli("run", str(micro_suite), "--device", "cuda", "--out", str(tmp_path), timeout=300)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["outcomes"]["ok"] == 6
    for record in point_records(read_records(Path(summary["result_dir"]))):
        assert record.environment.device == "cuda"
        assert record.memory.peak_allocated >= record.memory.weights


def test_events_include_all_queued_work():
    device = choose_device("cuda")
    a = torch.randn(8192, 8192, device=device, dtype=torch.bfloat16)
    clock = CudaClock(device)
    clock.time(lambda: a @ a)
    one, ten = clock.time(lambda: a @ a), clock.time(lambda: [a @ a for _ in range(10)])
    assert 5 < ten / one < 20


def test_out_of_memory_is_an_outcome(micro_suite, tmp_path):
    suite = load(Suite, str(micro_suite)).model_dump(mode="json", exclude={"name"})
    suite |= {
        "ceilings": False,
        "points": [
            {
                "model": ["tiny"],
                "workload": ["tiny-image"],
                "recipe": ["eager-fp32"],
                "set": {"denoiser.width": 2**18},
            }
        ],
    }
    path = tmp_path / "oom.yaml"
    path.write_text(json.dumps(suite))
    done = cli("run", str(path), "--device", "cuda", "--out", str(tmp_path), timeout=300)
    assert json.loads(done.stdout.splitlines()[-1])["outcomes"]["oom"] == 1


def test_telemetry_and_environment_of_the_card():
    device = choose_device("cuda")
    environment = describe(device)
    assert environment.cuda
    assert environment.device_uuid_hash
    a, clock = torch.randn(8192, 8192, device=device, dtype=torch.bfloat16), CudaClock(device)
    with monitor(device) as watch:
        for _ in range(300):
            watch.timed("gemm", lambda: clock.time(lambda: a @ a))
        seen = watch.finish("gemm", 1, lambda: a @ a, clock)
    print(seen.model_dump_json(indent=1))
    if (
        seen.reason is None
    ):  # a driver may refuse a reading, and says why; what it gives is plausible
        assert seen.n > 0
        assert seen.sm_clock_hz is None or 1e8 < seen.sm_clock_hz.median < 5e9
        assert seen.power_w is None or 20 < seen.power_w.median < 3000
        if seen.energy is not None:
            assert seen.energy.window_s >= 1.0
            assert 20 < seen.energy.power_w < 3000
        if seen.dram_util_percent is not None:
            assert 0 <= seen.dram_util_percent <= 101
            assert seen.tensor_util_percent is None or seen.tensor_util_percent > 10


def test_memory_of_each_stage_is_between_its_weights_and_the_card():
    point = load_point("tiny", "tiny-clip", "eager-bf16", stages=("denoise_step", "vae_decode"))
    device = choose_device("cuda")
    plan = Sampling(target_relative_half_width=0.5, min_samples=2, max_samples=3, max_s=0.2)
    _, memory, telemetry = measure_point(
        point,
        count_stages(point),
        device,
        CudaClock(device),
        plan,
        prior={},
        on_round=lambda *_: None,
    ).readings
    assert set(memory.by_stage) == set(telemetry) == {"denoise_step", "vae_decode"}
    for peak in memory.by_stage.values():
        assert memory.weights <= peak.peak_allocated <= peak.peak_reserved <= peak.device_used
        assert 0 < peak.activations < peak.peak_allocated


@pytest.mark.parametrize("attention", ["flash", "cudnn", "efficient"])
def test_attention_backends_give_the_same_output(attention):
    from bench.count.point import DTYPES
    from bench.measure.attention.backends import sdpa_backend
    from models.pipeline import build_pipeline
    from models.stages import example_inputs

    point = load_point("tiny", "tiny-clip", "eager-bf16")
    model, device = point.model, choose_device("cuda")
    pipeline = build_pipeline(
        model.denoiser, model.vae, model.text_encoders, device=device, dtype=DTYPES["bf16"], seed=0
    )
    inputs = example_inputs(
        pipeline,
        batch=1,
        channels=4,
        latent_shape=model.latent_shape(point.workload),
        device=device,
        dtype=DTYPES["bf16"],
        seed=1,
    )

    def output(backend: str) -> torch.Tensor:
        with torch.inference_mode(), sdpa_backend(backend):
            return pipeline.predict(inputs.latents, inputs.t, inputs.condition).float()

    reference = output("math")
    assert (
        output(attention) - reference
    ).norm() / reference.norm() < 0.03  # bf16 has 8 bits: 0.4 % an operation


def test_token_by_token_on_cuda():
    """Decoding over the cache equals the whole forward, and both stages are timed in half
    precision."""
    from models.ar.model import AutoregressiveTransformer, allocate_cache
    from models.layers import init_benchmark_weights

    device, point = choose_device("cuda"), load_point("tiny-ar", "tiny-clip", "eager-bf16")
    model = AutoregressiveTransformer(point.model.denoiser).to(device)
    init_benchmark_weights(model, 0)
    prompt = torch.randn(2, 64, 128, device=device)
    tokens = torch.randint(0, 256, (2, 6), device=device)
    cache = allocate_cache(
        model.config, 2, 70, lambda *shape: torch.empty(*shape, device=device), device
    )
    with torch.inference_mode():
        step = [
            model.prefill(prompt, tokens[:, :2], cache),
            *(model.decode(tokens[:, i], cache) for i in range(2, 6)),
        ]
        torch.testing.assert_close(
            torch.stack(step, dim=1), model(prompt, tokens)[:, 2:], rtol=1e-3, atol=1e-3
        )
    plan = Sampling(target_relative_half_width=0.1, min_samples=3, max_samples=10, max_s=1.0)
    timings, memory, _ = measure_point(
        point,
        count_stages(point),
        device,
        CudaClock(device),
        plan,
        prior={},
        on_round=lambda *_: None,
    ).readings
    assert set(timings) == {"prefill", "decode_token"}
    assert memory.peak_allocated > memory.weights


def test_two_dtypes_are_one_model_with_one_input_on_cuda():
    from models.pipeline import build_pipeline
    from models.stages import example_inputs
    from support.models.draw import assert_one_model

    device, point = choose_device("cuda"), load_point("tiny", "tiny-video", "eager-fp32")
    model = point.model

    def make(dtype: torch.dtype):
        pipeline = build_pipeline(
            model.denoiser, model.vae, model.text_encoders, device=device, dtype=dtype, seed=3
        )
        return pipeline, example_inputs(
            pipeline,
            batch=2,
            channels=4,
            latent_shape=model.latent_shape(point.workload),
            device=device,
            dtype=dtype,
            seed=4,
        )

    assert_one_model(make)


# relative L2 of the latents after four steps: bfloat16 has 8 bits, fp8 has 4, int8 a scale for each
# row
RECIPES = {
    "eager-bf16-cudnn": 0.05,
    "eager-bf16-flash": 0.05,
    "eager-bf16-efficient": 0.05,
    "eager-tf32": 0.05,
    "eager-fp16": 0.05,
    "fp8-bf16": 0.3,
    "int8-weight-bf16": 0.1,
    "int8-dynamic-bf16": 0.2,
    "sparse-bf16": 2.0,
    "compile-regional-bf16": 0.05,
    "compile-full-bf16": 0.05,
    "autotune-bf16": 0.05,
    "offload-weights-bf16": 1e-6,
    "batched-guidance-bf16": 0.05,
    "packed-guidance-bf16": 0.05,
    "fast-exact-bf16": 0.05,
    "fp8-regional-bf16": 0.3,
    "eager-bf16-flash3": 0.05,
    "eager-bf16-sage": 0.2,
    "eager-bf16-fp8-attention": 0.3,
    "fastest-attention-bf16": 0.05,
    "cuda-graph-bf16": 0.05,
    "cudnn-benchmark-bf16": 0.05,
    "vae-compiled-bf16": 0.05,
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_on_cuda_stay_near_their_baseline(recipe):
    from bench.measure.device.machine import this_machine
    from bench.measure.points.against import Pair, measure_against
    from bench.measure.recipes.apply import unsupported

    sizes = {"denoiser.width": 512, "denoiser.num_heads": 8, "workload.steps": 4}
    stages = ("trajectory", "vae_decode")
    point, base = (
        load_point("tiny", "tiny-video", name, sizes, stages) for name in (recipe, "eager-bf16")
    )
    device = choose_device("cuda")
    reason = unsupported(point.recipe, this_machine(device))
    if reason:
        pytest.skip(reason)
    plan = Sampling(target_relative_half_width=0.5, min_samples=2, max_samples=3, max_s=0.2)
    measured, against = measure_against(
        Pair(point, base, count_stages(point), count_stages(base)),
        device,
        CudaClock(device),
        plan,
        prior={},
        on_round=lambda *_: None,
    )
    timings, memory, _ = measured.readings
    assert against.in_turns
    assert against.divergence.relative_l2 <= RECIPES[recipe]
    assert memory.peak_allocated > 0
    assert (timings["trajectory"].compile_s is not None) == (point.recipe.compile != "none")


@pytest.mark.parametrize(
    ("recipe", "family"),
    [
        ("eager-bf16-cudnn", "cudnn"),
        ("eager-bf16-flash", "flash"),
        ("eager-bf16-efficient", "efficient"),
        ("eager-bf16-math", "math"),
        ("eager-bf16-flash3", "flash3"),
        ("eager-bf16-sage", "sage"),
        ("eager-bf16-fp8-attention", "fp8-flash3"),
        ("eager-bf16", None),
        ("fastest-attention-bf16", None),
    ],
)
def test_the_kernel_that_ran_is_the_one_that_was_asked_for(recipe, family):
    from bench.measure.attention.ran import attention_ran
    from bench.measure.device.machine import this_machine
    from bench.measure.points.build import build_calls
    from bench.measure.recipes.apply import unsupported

    device = choose_device("cuda")
    point = load_point(
        "tiny",
        "tiny-video",
        recipe,
        {"denoiser.width": 512, "denoiser.num_heads": 8},
        ("denoise_step",),
    )
    reason = unsupported(point.recipe, this_machine(device))
    if reason:
        pytest.skip(reason)
    calls, _ = build_calls(point, device)
    with torch.inference_mode():
        calls["denoise_step"]()
        ran = attention_ran(point, calls, device)
    print(ran.model_dump_json(indent=1))
    assert ran.backend in (
        ("cudnn", "flash", "efficient", "flash3") if family is None else (family,)
    )
    assert ran.kernel or ran.reason  # a container may forbid the profiler's kernels


def test_a_graphed_denoiser_gives_what_the_eager_one_does_at_every_step():
    from bench.measure.points.build import build_calls

    device, made = choose_device("cuda"), []
    for recipe in ("eager-bf16", "cuda-graph-bf16"):
        point = load_point("tiny", "tiny-video", recipe, {"workload.steps": 4}, ("trajectory",))
        calls, _ = build_calls(point, device)
        with torch.inference_mode():
            made += [calls["trajectory"]().float(), calls["trajectory"]().float()]
    assert (made[2] - made[0]).norm() < 0.02 * made[0].norm()
    assert torch.equal(made[2], made[3])


def test_activations_kept_on_the_host_take_less_of_the_card():
    device, plan = (
        choose_device("cuda"),
        Sampling(target_relative_half_width=0.5, min_samples=2, max_samples=3, max_s=0.2),
    )
    peaks = []
    for recipe in ("eager-bf16", "offload-activations-bf16"):
        point = load_point(
            "tiny",
            "tiny-video",
            recipe,
            {"denoiser.width": 1024, "denoiser.num_heads": 16},
            ("train_step",),
        )
        _, memory, _ = measure_point(
            point,
            count_stages(point),
            device,
            CudaClock(device),
            plan,
            prior={},
            on_round=lambda *_: None,
        ).readings
        peaks.append(memory.peak_allocated)
    assert peaks[1] < peaks[0]
