"""Compiled, captured and quantised points: the same output, and no compile time in a sample."""

import os
import threading
from collections.abc import Callable

import pytest
import torch

from bench.core.load import load, load_point
from bench.core.specs.recipe import Recipe
from bench.measure.device.machine import this_machine
from bench.measure.errors import Unsupported
from bench.measure.points.against import Pair, measure_against
from bench.measure.points.build import build_calls, count_stages
from bench.measure.points.divergence import divergence_of
from bench.measure.points.single import measure_point
from bench.measure.recipes import apply as execution
from bench.measure.recipes.apply import unsupported
from bench.measure.recipes.quantise import quantise
from support.measure.recipes import needs_torchao, outputs, point
from support.plans import PLAN

CPU = torch.device("cpu")


STAGES = ("trajectory", "vae_decode")


QUICK = PLAN.model_copy(update={"min_samples": 2, "max_samples": 2, "max_s": 0.1})


class CallClock:
    """The first call of a stage takes a hundred seconds, as if it were compiled, the others one;
    nothing else passes."""

    def __init__(self):
        self.passed, self.seen = 0.0, set()

    def time(self, call: Callable) -> float:
        seconds = 1.0 if id(call) in self.seen else 100.0
        self.seen.add(id(call))
        self.passed += seconds
        return seconds

    def now(self) -> float:
        return self.passed


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "in turns"])
def test_compile_time_is_in_no_sample(monkeypatch, beside):
    monkeypatch.setattr(execution, "blocks_of", lambda denoiser: [])  # nothing is compiled in truth
    compiled = point({"compile": "regional"})
    counts = count_stages(compiled)
    if beside:
        measured, _ = measure_against(
            Pair(compiled, point(), counts, count_stages(point())),
            CPU,
            CallClock(),
            QUICK,
            prior={},
            on_round=lambda *_: None,
        )
        timings, *_ = measured.readings
    else:
        timings, *_ = measure_point(
            compiled, counts, CPU, CallClock(), QUICK, prior={}, on_round=lambda *_: None
        ).readings
    for timing in timings.values():
        assert timing.compile_s == 100.0
        assert set(timing.samples_s) == {1.0}
        assert set(timing.warmup_s) <= {1.0, 100.0}


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["regional", "full"])
@pytest.mark.skipif(
    unsupported(load(Recipe, "compile-full-fp32"), this_machine(CPU)) is not None,
    reason="no C++ compiler here",
)
def test_compiled_is_as_eager(mode, baseline):
    with execution.compiling():
        assert divergence_of(outputs({"compile": mode}), baseline).relative_l2 < 1e-4


@needs_torchao
def test_quantising_leaves_the_compilers_settings_and_the_precision_of_products(monkeypatch):
    """Also with a torchao that turns them on whatever it is told."""
    import torch._inductor.config as inductor
    from torchao import quantization as ao

    def settings() -> tuple:
        return (
            inductor.coordinate_descent_tuning,
            inductor.force_fuse_int_mm_with_mul,
            inductor.triton.unique_kernel_names,
            torch.get_float32_matmul_precision(),
        )

    told = []

    def careless(model, config, **kwargs):
        told.append(config.set_inductor_config)
        inductor.coordinate_descent_tuning = inductor.force_fuse_int_mm_with_mul = True
        torch.set_float32_matmul_precision("high")

    before = settings()
    monkeypatch.setattr(ao, "quantize_", careless)
    for form in ("int8-weight", "int8-dynamic", "fp8"):
        quantise(torch.nn.Linear(16, 16), form)
        assert settings() == before
    assert told == [False, False, False]


def test_each_compiled_point_finds_both_caches_empty_and_leaves_the_environment(monkeypatch):
    names = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
    monkeypatch.setenv(names[0], "/inductor")
    monkeypatch.delenv(names[1], raising=False)
    seen = []
    for _ in range(2):
        with execution.compiling():
            # Inductor names a folder for Triton where none is named, once in a process.
            os.environ.setdefault(names[1], "/tmp/of-the-first-point")
            seen.append([os.environ[name] for name in names])
            assert all(not os.path.isdir(path) or not os.listdir(path) for path in seen[-1])
    assert len({path for pair in seen for path in pair}) == 4
    assert os.environ[names[0]] == "/inductor"
    assert names[1] not in os.environ


class FakeGraphs:
    """Captures by running the call; a replay runs it again, as a graph runs on what now lies in its
    operands."""

    def __init__(self):
        self.captured = self.replayed = 0

    def __call__(self, call: Callable, device: torch.device) -> Callable:
        self.captured += 1
        call()

        def replay() -> None:
            self.replayed += 1
            call()

        return replay


@pytest.mark.parametrize(
    ("recipe", "graphs", "replays"),
    [
        ({}, 1, 4),
        ({"guidance": "batched"}, 1, 2),
        ({"guidance": "distilled"}, 1, 2),
        (
            {
                "draft": {
                    "denoiser": {"depth": 1},
                    "schedule": {"share": 0.5, "draft_runs": "early"},
                }
            },
            2,
            4,
        ),
    ],
    ids=str,
)
def test_a_graphed_trajectory_is_the_same_and_captured_once_a_shape(
    monkeypatch, recipe, graphs, replays
):
    """Two guided steps: every forward is a replay, with the latents, the time and the condition of
    its own."""
    fake = FakeGraphs()
    monkeypatch.setattr(execution, "capture_graph", fake)
    plain = outputs(recipe)
    assert fake.captured == 0
    assert divergence_of(outputs({**recipe, "cuda_graph": True}), plain).identical
    assert (fake.captured, fake.replayed) == (graphs, replays)


def test_a_forward_that_cannot_be_captured_says_so(monkeypatch):
    def waits(call, device):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(execution, "capture_graph", waits)
    with pytest.raises(
        RuntimeError, match="could not be captured as a CUDA graph: operation not permitted"
    ):
        outputs({"cuda_graph": True})


def test_cudnn_times_its_algorithms_on_a_thread_of_its_own_and_nowhere_else():
    def settings() -> tuple:
        return (
            threading.get_ident(),
            torch.backends.cudnn.benchmark,
            torch.is_inference_mode_enabled(),
            torch.is_grad_enabled(),
        )

    call = execution.held(settings, point({"cudnn_benchmark": True}).recipe)
    here = threading.get_ident()
    with torch.inference_mode():
        first, again = call(), call()
    assert first == again
    assert first[0] != here
    assert first[1:] == (True, True, False)
    assert execution.held(settings, point().recipe)() == (here, False, False, True)
    with pytest.raises(ZeroDivisionError):
        execution.held(lambda: 1 / 0, point({"cudnn_benchmark": True}).recipe)()
    assert torch.backends.cudnn.benchmark is False


def test_a_public_vae_is_not_compiled_and_says_why():
    public = load_point("wan-tiny", "versus-cpu", "vae-compiled-fp32", stages=("vae_decode",))
    with pytest.raises(Unsupported, match="compile_vae full: own VAEs"):
        build_calls(public, CPU)


def test_compile_time_of_a_compiled_vae_is_that_of_its_own_stages(monkeypatch):
    monkeypatch.setattr(execution, "_compile_vae", lambda vae: None)  # nothing is compiled in truth
    compiled = point({"compile_vae": "full"})
    timings, *_ = measure_point(
        compiled,
        count_stages(compiled),
        CPU,
        CallClock(),
        QUICK,
        prior={},
        on_round=lambda *_: None,
    ).readings
    assert {stage: t.compile_s for stage, t in timings.items()} == {
        "trajectory": None,
        "vae_decode": 100.0,
    }


@pytest.mark.slow
@pytest.mark.skipif(
    unsupported(load(Recipe, "vae-compiled-fp32"), this_machine(CPU)) is not None,
    reason="no C++ compiler here",
)
def test_a_compiled_vae_is_as_the_eager_one(baseline):
    with execution.compiling():
        apart = divergence_of(outputs({"compile_vae": "full"}), baseline)
    assert apart.relative_l2 == 0.0  # of the latents: the denoiser is left alone
    assert apart.psnr_db is None or apart.psnr_db > 100
