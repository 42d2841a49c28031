"""Recipes: what each needs, what it does to the output, and that what must be exact is."""

import importlib.util
import os
import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from bench.core.errors import UserError
from bench.core.load import expand, load, load_point, names
from bench.core.specs.point import Point
from bench.core.specs.recipe import Recipe
from bench.core.specs.suite import Suite
from bench.count.closed.dit import dit_forward
from bench.measure.device.machine import Machine, this_machine
from bench.measure.errors import Unsupported
from bench.measure.points import build as building
from bench.measure.points.against import Pair, divergence_of, measure_against
from bench.measure.points.build import build_calls, count_stages
from bench.measure.points.single import measure_point
from bench.measure.recipes import apply as execution
from bench.measure.recipes.apply import unsupported
from bench.measure.recipes.quantise import block_linears, pruned, quantise, ternary, weight_bytes
from bench.measure.timing.clock import clock_for
from bench.results.counts import StageCount
from support.plans import PLAN

CPU = torch.device("cpu")
STAGES = ("trajectory", "vae_decode")
QUICK = PLAN.model_copy(update={"min_samples": 2, "max_samples": 2, "max_s": 0.1})
EVERYTHING = frozenset({"torchao", "triton", "diffusers", "sageattention", "flash_attn_interface"})
needs_torchao = pytest.mark.skipif(
    importlib.util.find_spec("torchao") is None, reason="torchao is not installed"
)


def point(recipe: dict | None = None, stages: tuple[str, ...] = STAGES) -> Point:
    """A guided clip of five frames in two steps."""
    return load_point(
        "tiny",
        "tiny-video",
        "eager-fp32",
        {
            "workload.frames": 5,
            "workload.height": 32,
            "workload.width": 32,
            "workload.steps": 2,
            "denoiser.depth": 2,
            "denoiser.width": 128,
            "denoiser.num_heads": 2,
            **{f"recipe.{name}": value for name, value in (recipe or {}).items()},
        },
        stages,
    )


def outputs(recipe: dict | None = None) -> dict[str, torch.Tensor]:
    """What the recipe makes, from the same seed and weights."""
    calls, _ = build_calls(point(recipe), CPU)
    with torch.inference_mode():
        latents = calls["trajectory"]()
        return {"latents": latents.float(), "video": calls["vae_decode"](latents).float()}


@pytest.fixture(scope="module")
def baseline() -> dict[str, torch.Tensor]:
    return outputs()


def test_fields_that_came_later_change_no_fingerprint_until_they_say_something():
    plain = load(Recipe, "eager-fp32")
    assert plain.identity() == {
        "dtype": "fp32",
        "attention": "auto",
        "vae_chunk": None,
        "vae_tile": None,
    }
    assert plain.model_copy(update={"steps": 8}).identity() == {**plain.identity(), "steps": 8}
    before = {name: getattr(plain, name) for name in ("name", "description", "dtype", "attention")}
    assert Recipe.model_validate(before) == plain


@pytest.mark.parametrize(
    "recipe",
    [
        {"guidance": "batched"},
        {"guidance": "packed"},
        {"vae_chunk": 1},
        {"vae_chunk": 2},
        {"attention": "fastest"},
    ],
    ids=str,
)
def test_what_must_be_exact_is(recipe, baseline):
    apart = divergence_of(outputs(recipe), baseline)
    assert apart.relative_l2 < 1e-5  # float32 sums in another order
    assert apart.cosine > 1 - 1e-9
    assert apart.psnr_db is None or apart.psnr_db > 100


def test_a_sample_of_a_batch_is_what_it_would_be_alone(baseline):
    apart = divergence_of(outputs({"batch": 2}), baseline)
    assert apart.samples == 1
    assert apart.relative_l2 < 1e-5


@pytest.mark.parametrize(
    ("recipe", "least", "most"),
    [
        ({"dtype": "bf16"}, 1e-3, 0.05),
        ({"quantise": "ternary"}, 0.1, 2.0),
        pytest.param({"quantise": "int8-weight"}, 1e-4, 0.05, marks=needs_torchao),
        pytest.param({"quantise": "int8-dynamic"}, 1e-4, 0.1, marks=needs_torchao),
        ({"guidance": "distilled"}, 0.1, 10.0),
        ({"steps": 1}, 0.05, 10.0),
        ({"denoiser": {"attention": "factorised"}}, 0.01, 2.0),
    ],
    ids=str,
)
def test_what_changes_the_arithmetic_shows_in_the_output(recipe, least, most, baseline):
    apart = divergence_of(outputs(recipe), baseline)
    assert least < apart.relative_l2 < most
    assert not apart.identical


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "lcm"])
def test_every_sampler_ends_in_finite_latents_that_repeat(sampler):
    made = [outputs({"sampler": sampler})["latents"] for _ in range(2)]
    assert made[0].isfinite().all()
    assert torch.equal(*made)


def test_divergence_is_what_its_names_say():
    a = torch.zeros(1, 1, 1, 1, 4)
    a[..., 0] = 3.0
    b = a.clone()
    b[..., 1] = 4.0  # right angle: |b - a| / |a| = 4/3, cosine 3/5
    apart = divergence_of({"latents": b, "video": b}, {"latents": a, "video": a})
    assert apart.relative_l2 == pytest.approx(4 / 3)
    assert apart.cosine == pytest.approx(0.6)
    assert apart.psnr_db == pytest.approx(10 * torch.tensor(3.0**2 / (4.0**2 / 4)).log10().item())
    same = divergence_of({"latents": a, "video": a}, {"latents": a, "video": a})
    assert (same.identical, same.relative_l2, same.psnr_db) == (True, 0.0, None)


def test_ternary_and_two_of_four():
    w = torch.tensor([[1.0, -0.1, 0.4, -2.5]])  # mean magnitude 1
    assert torch.equal(ternary(w), torch.tensor([[1.0, 0.0, 0.0, -1.0]]))
    assert torch.equal(pruned(w), torch.tensor([[1.0, 0.0, 0.0, -2.5]]))


@needs_torchao
def test_int8_weights_take_a_byte():
    from models.pipeline import build_pipeline

    spec = point({"quantise": "int8-weight"})
    pipeline = build_pipeline(
        spec.model.denoiser,
        spec.model.vae,
        (),
        device=CPU,
        dtype=torch.float32,
        seed=0,
        stages=("forward",),
    )
    linears = sum(m.weight.numel() for m in block_linears(pipeline.denoiser))
    before = weight_bytes(pipeline.denoiser)
    execution.carry_out(pipeline, spec.recipe)
    saved = before - weight_bytes(pipeline.denoiser)
    assert 2.9 * linears < saved < 3 * linears  # four bytes become one, and a scale for each row


def counted(recipe: dict | None = None) -> dict[str, int]:
    return {stage: c.flops for stage, c in count_stages(point(recipe)).stages.items()}


def test_counts_follow_the_recipe():
    plain = counted()
    assert plain["denoise_step"] == 2 * plain["forward"]
    assert plain["trajectory"] == 2 * plain["denoise_step"]  # two steps
    assert counted({"guidance": "batched"}) == counted({"guidance": "packed"}) == plain
    learned = counted({"guidance": "distilled"})
    assert learned["denoise_step"] == learned["forward"] == plain["forward"]
    assert counted({"steps": 8, "sampler": "lcm"})["trajectory"] == 8 * plain["denoise_step"]
    assert counted({"batch": 3})["forward"] == 3 * plain["forward"]
    kernels = [
        count_stages(point({"guidance": g})).stages["denoise_step"].kernels
        for g in ("sequential", "batched")
    ]
    assert kernels[1] < 0.7 * kernels[0]


CPU_MACHINE = Machine(kind="cpu", capability=None, packages=EVERYTHING, compiler=True)


def card(*capability: int) -> Machine:
    return Machine(
        kind="cuda",
        capability=capability,
        packages=EVERYTHING,
        compiler=True,
        flash_impls=frozenset({"FA3"}),
    )


def bare_card(*capability: int) -> Machine:
    return Machine(
        kind="cuda", capability=capability, packages=frozenset({"triton"}), compiler=True
    )


@pytest.mark.parametrize(
    ("name", "machine", "reason"),
    [
        ("eager-tf32", CPU_MACHINE, "dtype tf32 needs CUDA with compute capability 8.0"),
        (
            "eager-tf32",
            card(7, 5),
            "dtype tf32 needs CUDA with compute capability 8.0; this device has 7.5",
        ),
        ("eager-tf32", card(8, 0), None),
        (
            "eager-fp16",
            CPU_MACHINE,
            "dtype fp16 needs CUDA: a CPU's float16 convolutions take minutes",
        ),
        (
            "fp8-bf16",
            card(8, 0),
            "quantise fp8 needs CUDA with compute capability 8.9; this device has 8.0",
        ),
        ("fp8-bf16", card(9, 0), None),
        ("sparse-bf16", CPU_MACHINE, "sparsity 2:4 needs CUDA with compute capability 8.0"),
        ("sparse-bf16", card(8, 6), None),
        ("autotune-bf16", CPU_MACHINE, "compile autotune needs CUDA, for its graphs"),
        ("offload-weights-bf16", CPU_MACHINE, "offload weights needs CUDA: a CPU has one memory"),
        ("eager-bf16-cudnn", CPU_MACHINE, "attention cudnn needs CUDA"),
        (
            "int8-weight-fp32",
            Machine("cpu", None, frozenset(), True),
            "quantise int8-weight needs torchao (pip install 'ldt-bench[quantise]')",
        ),
        (
            "compile-full-fp32",
            Machine("cpu", None, EVERYTHING, False),
            "compile full needs a C++ compiler (g++ or clang++)",
        ),
        (
            "compile-full-bf16",
            Machine("cuda", (9, 0), frozenset(), True),
            "compile full needs triton, which CUDA builds of PyTorch bring",
        ),
        ("eager-fp32", Machine("cpu", None, frozenset(), False), None),
        (
            "eager-bf16-flash3",
            CPU_MACHINE,
            "attention flash3 needs CUDA with compute capability 9.0",
        ),
        (
            "eager-bf16-flash3",
            card(10, 0),
            "attention flash3 needs CUDA with compute capability 9.0; this device has 10.0",
        ),
        (
            "eager-bf16-flash3",
            bare_card(9, 0),
            (
                "attention flash3 needs flash_attn_interface (FlashAttention-3, built from the"
                " folder hopper of its repository)"
            ),
        ),
        (
            "eager-bf16-flash3",
            Machine("cuda", (9, 0), EVERYTHING, True),
            (
                "attention flash3 needs a PyTorch with"
                " torch.nn.attention.activate_flash_attention_impl, as 2.11 has"
            ),
        ),
        (
            "eager-bf16-fp8-attention",
            card(8, 9),
            "attention fp8-flash3 needs CUDA with compute capability 9.0; this device has 8.9",
        ),
        (
            "eager-bf16-sage",
            card(7, 5),
            "attention sage needs CUDA with compute capability 8.0; this device has 7.5",
        ),
        (
            "eager-bf16-sage",
            bare_card(8, 0),
            "attention sage needs sageattention (pip install 'ldt-bench[attention]')",
        ),
        ("eager-bf16-sage", card(8, 0), None),
        (
            "fp8-regional-bf16",
            bare_card(9, 0),
            "quantise fp8 needs torchao (pip install 'ldt-bench[quantise]')",
        ),
        ("cuda-graph-bf16", CPU_MACHINE, "cuda_graph needs CUDA"),
        ("cudnn-benchmark-bf16", CPU_MACHINE, "cudnn_benchmark needs CUDA"),
        (
            "vae-compiled-fp32",
            Machine("cpu", None, EVERYTHING, False),
            "compile_vae full needs a C++ compiler (g++ or clang++)",
        ),
        ("fastest-attention-fp32", Machine("cpu", None, frozenset(), False), None),
    ],
)
def test_each_recipe_says_what_it_lacks(name, machine, reason):
    assert unsupported(load(Recipe, name), machine) == reason


def test_a_whole_h100_lacks_nothing():
    assert not [name for name in names("recipes") if unsupported(load(Recipe, name), card(9, 0))]


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"quantise": "fp8"}, "quantise fp8 with dtype fp32: it takes bf16"),
        ({"sparsity": "2:4"}, "sparsity 2:4 with dtype fp32: it takes bf16 or fp16"),
        (
            {"dtype": "bf16", "sparsity": "2:4", "quantise": "fp8"},
            "quantise fp8 with sparsity 2:4: one of the two alone",
        ),
        (
            {"compile": "full", "guidance": "packed"},
            "compile full with guidance packed: one of the two alone",
        ),
        (
            {"guidance": "packed", "batch": 2},
            "guidance packed: own denoisers pack requests, at batch 1",
        ),
        ({"sampler": "lcm", "steps": 9}, "lcm takes 1 to 8; nearest: 8"),
        ({"denoiser": {"atention": "full"}}, "denoiser.atention is not one of"),
        (
            {"cache": {"kind": "pab", "every": 2, "warmup": 1, "last": 0}},
            "cache pab is diffusers', for public models",
        ),
        (
            {"guidance": "packed", "cache": {"kind": "taylor", "every": 2, "warmup": 1, "last": 0}},
            "cache taylor with guidance packed: one of the two alone",
        ),
        ({"cache": {"kind": "taylor", "every": 0, "warmup": 1, "last": 0}}, "every is 0"),
        (
            {
                "draft": {
                    "denoiser": {"depht": 1},
                    "schedule": {"share": 0.5, "draft_runs": "early"},
                }
            },
            "denoiser.depht is not one",
        ),
        ({"denoiser": {"attention": "windowed"}}, "window"),
        ({"quantize": "fp8"}, "did you mean"),
        ({"attention": "sage"}, "attention sage with dtype fp32: it takes bf16 or fp16"),
        (
            {"attention": "fastest", "compile": "regional"},
            "attention fastest with compile regional: one of the two alone",
        ),
        (
            {"cuda_graph": True, "compile": "full"},
            "cuda_graph True with compile full: one of the two alone",
        ),
        (
            {"cuda_graph": True, "guidance": "packed"},
            "cuda_graph True with guidance packed: one of the two alone",
        ),
        (
            {"compile_vae": "full", "vae_chunk": 2},
            "compile_vae full with vae_chunk 2: one of the two alone",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_combined_is_said_in_one_line(recipe, message):
    with pytest.raises(UserError, match=message) as caught:
        point(recipe)
    assert "\n" not in str(caught.value)


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
    monkeypatch.setattr(execution, "_blocks", lambda denoiser: [])  # nothing is compiled in truth
    compiled = point({"compile": "regional"})
    counts = count_stages(compiled)
    if beside:
        timings, *_ = measure_against(
            Pair(compiled, point(), counts, count_stages(point())),
            CPU,
            CallClock(),
            QUICK,
            prior={},
            on_round=lambda *_: None,
        )
    else:
        timings, *_ = measure_point(
            compiled, counts, CPU, CallClock(), QUICK, prior={}, on_round=lambda *_: None
        )
    for timing in timings.values():
        assert timing.compile_s == 100.0
        assert set(timing.samples_s) == {1.0}
        assert set(timing.warmup_s) <= {1.0, 100.0}


def test_a_point_beside_its_baseline_has_both_timings_and_a_divergence():
    ours, base = point({"guidance": "batched"}), point()
    heard = []
    timings, memory, telemetry, against = measure_against(
        Pair(ours, base, count_stages(ours), count_stages(base)),
        CPU,
        clock_for(CPU),
        QUICK,
        prior={},
        on_round=lambda stage, samples: heard.append(stage),
    )
    assert set(timings) == set(against.timings) == set(telemetry) == set(heard) == set(STAGES)
    assert against.in_turns
    assert against.divergence.relative_l2 < 1e-5
    assert Point.model_validate(against.point) == base
    assert memory.weights > 0


def test_a_baseline_that_does_not_fit_beside_follows(monkeypatch):
    from bench.measure.points import against as module

    monkeypatch.setattr(module, "free_memory", lambda device: 1000)
    ours, base = point({"steps": 1}), point()
    *_, against = measure_against(
        Pair(ours, base, count_stages(ours), count_stages(base)),
        CPU,
        clock_for(CPU),
        QUICK,
        prior={},
        on_round=lambda *_: None,
    )
    assert not against.in_turns
    assert "the baseline needs" in against.reason
    assert set(against.timings) == set(STAGES)


@pytest.mark.parametrize("name", ["ablations", "ablations-cpu"])
def test_every_recipe_of_the_suites_has_a_baseline_but_the_baseline(name):
    suite = load(Suite, name)
    points = expand(suite)
    alone = [expanded.point for expanded in points if expanded.baseline is None]
    assert [p.recipe.name for p in alone] == [suite.headline.recipe]
    assert not suite.calibrate
    for p, base in ((e.point, e.baseline or e.point) for e in points):
        assert (p.model.name, p.workload.name, p.stages) == (
            base.model.name,
            base.workload.name,
            base.stages,
        )


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["regional", "full"])
@pytest.mark.skipif(
    unsupported(load(Recipe, "compile-full-fp32"), this_machine(CPU)) is not None,
    reason="no C++ compiler here",
)
def test_compiled_is_as_eager(mode, baseline):
    with execution.compiling():
        assert divergence_of(outputs({"compile": mode}), baseline).relative_l2 < 1e-4


FIRST_BLOCK = {"kind": "first-block", "every": 2, "warmup": 1, "last": 0}


@pytest.mark.parametrize("guidance", ["sequential", "batched"])
def test_a_cached_trajectory_counts_what_it_executes(guidance):
    """Four steps, one in two computed; a reused one runs the first of two blocks."""
    plain = count_stages(point({"steps": 4, "guidance": guidance})).stages
    cached = count_stages(point({"steps": 4, "guidance": guidance, "cache": FIRST_BLOCK})).stages
    assert cached["denoise_step"] == plain["denoise_step"]
    saved = plain["trajectory"].flops - cached["trajectory"].flops
    one_block = dit_forward(point().model.denoiser, point().model.latent_shape(point().workload), 1)
    less = dit_forward(
        point({"denoiser": {"depth": 1}}).model.denoiser,
        point().model.latent_shape(point().workload),
        1,
    )
    assert saved == 2 * 2 * (
        sum(one_block.values()) - sum(less.values())
    )  # two steps, two answers each
    assert sum(cached["trajectory"].operators.calls) == cached["trajectory"].kernels


def test_a_drafted_trajectory_counts_both_models():
    drafted = {
        "steps": 5,
        "draft": {"denoiser": {"depth": 1}, "schedule": {"share": 0.4, "draft_runs": "early"}},
    }
    step = {
        depth: count_stages(point({"denoiser": {"depth": depth}})).stages["denoise_step"].flops
        for depth in (1, 2)
    }
    assert count_stages(point(drafted)).stages["trajectory"].flops == 2 * step[1] + 3 * step[2]


@pytest.mark.parametrize(
    "recipe",
    [
        {"steps": 4, "cache": FIRST_BLOCK},
        {"steps": 4, "cache": FIRST_BLOCK | {"kind": "taylor"}},
        {"steps": 4, "cache": FIRST_BLOCK | {"kind": "whole-step"}},
        {"steps": 4, "cache": FIRST_BLOCK, "guidance": "batched"},
        {
            "steps": 4,
            "draft": {"denoiser": {"depth": 1}, "schedule": {"share": 0.5, "draft_runs": "early"}},
        },
    ],
    ids=str,
)
def test_caches_and_drafts_diverge_and_repeat(recipe):
    base = outputs({"steps": 4})
    calls, _ = build_calls(point(recipe), CPU)
    with torch.inference_mode():
        calls["vae_decode"]()
        first, again = calls["trajectory"](), calls["trajectory"]()
    assert torch.equal(first, again)  # nothing is left of the first
    apart = divergence_of({"latents": first}, {"latents": base["latents"]})
    assert 1e-4 < apart.relative_l2 < 2


def test_a_cache_that_computes_every_step_changes_nothing(baseline):
    assert divergence_of(outputs({"cache": FIRST_BLOCK | {"every": 1}}), baseline).identical


def test_a_class_that_takes_no_cache_is_unsupported_with_the_reason(monkeypatch):
    public = load_point(
        "sana-video-2b",
        "480p-81f",
        "cache-first-block-bf16",
        {
            "workload.frames": 5,
            "workload.height": 64,
            "workload.width": 64,
            "denoiser.config.num_layers": 2,
        },
        ("trajectory",),
    )
    step = StageCount(
        **dict.fromkeys((name for name, f in StageCount.model_fields.items() if f.is_required()), 1)
        | {"uncounted_ops": {}}
    )
    monkeypatch.setattr(
        building, "count_point", lambda p: SimpleNamespace(stages={"denoise_step": step})
    )
    with pytest.raises(Unsupported, match="cache first-block: diffusers'"):
        count_stages(public)


def test_the_existing_recipes_have_the_fingerprints_they_had():
    assert load(Recipe, "fast-bf16").identity() == {
        "dtype": "bf16",
        "attention": "auto",
        "vae_chunk": None,
        "vae_tile": None,
        "quantise": "fp8",
        "compile": "regional",
        "guidance": "distilled",
        "steps": 4,
        "sampler": "lcm",
    }


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
    )
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
