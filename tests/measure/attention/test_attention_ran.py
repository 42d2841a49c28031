"""Which attention kernel ran: read from profiles, real on a CPU and made up of a card's; the
backends that recipes put in SDPA's place, by fake packages; and the one that is fastest inside the
model."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from bench.core.load import load_point
from bench.core.specs.point import Point
from bench.measure.attention import backends as sdpa
from bench.measure.attention import fastest
from bench.measure.attention import ran as looking
from bench.measure.attention.fastest import fastest_attention
from bench.measure.attention.ran import (
    OPERATORS,
    Ran,
    attention_ran,
    family_of,
    family_ran,
    what_ran,
)
from bench.measure.device.machine import Machine
from bench.measure.points.build import build_calls, count_stages
from bench.measure.points.single import measure_point
from bench.measure.timing.sampling import summarise
from bench.report.tables.device import attending, attention_table, backend
from bench.results.records import AttentionRan, Probe
from models import kernels
from models.dit import attention

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
SMALL = {
    "workload.frames": 5,
    "workload.height": 32,
    "workload.width": 32,
    "denoiser.width": 128,
    "denoiser.num_heads": 2,
}
ON_CPU = "no kernel has a name on a CPU"


@pytest.fixture(autouse=True)
def _pytorchs_own_kernels(monkeypatch):
    """Not every CPU has oneDNN's bfloat16."""
    monkeypatch.setattr(kernels, "ONEDNN", False)


def own(recipe: str, stages: tuple[str, ...] = ("denoise_step",), **sets: object) -> Point:
    return load_point("tiny", "tiny-video", recipe, {**SMALL, "denoiser.depth": 6, **sets}, stages)


def public(recipe: str) -> Point:
    return load_point(
        "wan-tiny",
        "versus-cpu",
        recipe,
        {"workload.frames": 5, "workload.height": 64, "workload.width": 64},
        ("denoise_step",),
    )


def ran(point: Point) -> AttentionRan | None:
    calls, _ = build_calls(point, CPU)
    with torch.inference_mode():
        return attention_ran(point, calls, CPU)


# --- names of kernels ---


@pytest.mark.parametrize(
    ("kernel", "family"),
    [
        (
            "cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_7_64x128x128_4x1x1_kernel0_0",
            "cudnn",
        ),
        (
            "cudnn_generated_fort_native_sdpa_sm80_flash_fprop_f16_knob_30_64x64x128_4x1x1_kernel0_0",
            "cudnn",
        ),
        (
            (
                "void pytorch_flash::flash_fwd_kernel<pytorch_flash::Flash_fwd_kernel_traits<128,"
                " 128, 64, 4, false, false, cutlass::bfloat16_t>, false, false,"
                " false>(pytorch_flash::Flash_fwd_params)"
            ),
            "flash",
        ),
        (
            (
                "void pytorch_flash::flash_fwd_splitkv_kernel<pytorch_flash::Flash_fwd_kernel_traits<128>>()"  # noqa: E501
            ),
            "flash",
        ),
        (
            "fmha_cutlassF_bf16_aligned_64x128_rf_sm80(PyTorchMemEffAttention::AttentionKernel<cutlass::bfloat16_t>)",
            "efficient",
        ),
        (
            (
                "void cutlass::device_kernel<flash::enable_sm90_or_later<flash::FlashAttnFwdSm90<flash::CollectiveMainloopFwdSm90<2>>>>"  # noqa: E501
            ),
            "flash3",
        ),
        ("void qk_int_sv_f8_attn_kernel<128u, 64u, 32u, 64u, 128u, (DataType)1>()", "sage"),
        ("_attn_fwd", "sage"),
        ("triton_tem_fused_flex_attention_0", "flex"),
        (
            (
                "void (anonymous namespace)::softmax_warp_forward<c10::BFloat16, c10::BFloat16,"
                " float, 9, false, false>()"
            ),
            "math",
        ),
        ("ampere_bf16_s16816gemm_bf16_128x128_ldg8_f2f_stages_32x5_tn", None),
        (
            (
                "void at::native::vectorized_elementwise_kernel<4,"
                " at::native::CUDAFunctor_add<float>>()"
            ),
            None,
        ),
    ],
)
def test_a_kernels_name_says_its_family(kernel, family):
    assert family_of(kernel, looking.KERNELS) == family


@pytest.mark.parametrize(
    ("operator", "family"),
    [
        ("aten::_scaled_dot_product_cudnn_attention", "cudnn"),
        ("aten::_scaled_dot_product_flash_attention", "flash"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu", "flash"),
        ("aten::_scaled_dot_product_efficient_attention", "efficient"),
        ("aten::_scaled_dot_product_attention_math", "math"),
        ("mkldnn::_linear_pointwise", "onednn"),
        ("aten::scaled_dot_product_attention", None),
    ],
)
def test_so_does_an_operators(operator, family):
    assert family_of(operator, OPERATORS) == family


def event(name: str, microseconds: float = 1.0, kernel: bool = True) -> SimpleNamespace:
    kind = torch.autograd.DeviceType.CUDA if kernel else torch.autograd.DeviceType.CPU
    return SimpleNamespace(
        name=name, device_type=kind, time_range=SimpleNamespace(elapsed_us=lambda: microseconds)
    )


QKV = tuple(torch.randn(3, 1, 2, 8, 16).unbind(0))


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        (
            [
                event("elementwise", 9),
                event("pytorch_flash::flash_fwd_splitkv_combine_kernel", 2),
                event("pytorch_flash::flash_fwd_splitkv_kernel", 5),
            ],
            Ran("flash", "pytorch_flash::flash_fwd_splitkv_kernel", None),
        ),
        (
            [event("gemm", 9), event("softmax_warp_forward", 2), event("gemm", 8)],
            Ran("math", "gemm", None),
        ),
        (
            [event("softmax_of_a_mask", 9), event("fmha_cutlassF_f32", 2)],
            Ran("efficient", "fmha_cutlassF_f32", None),
        ),
        (
            [event("aten::_scaled_dot_product_cudnn_attention", kernel=False)],
            Ran("cudnn", None, "the profiler saw no kernel: is CUPTI permitted?"),
        ),
        (
            [
                event("some_new_kernel"),
                event("aten::_scaled_dot_product_flash_attention", kernel=False),
            ],
            Ran("flash", None, "the profiler saw no attention kernel"),
        ),
    ],
)
def test_of_a_profile_the_longest_kernel_of_the_fused_family_is_kept(events, expected):
    assert what_ran(events, None, QKV, CUDA) == expected


def test_without_a_profile_what_sdpa_would_choose_is_recorded_with_the_reason(monkeypatch):
    monkeypatch.setattr(torch, "_fused_sdp_choice", lambda *qkv: 3)
    assert what_ran([], "no profile: CUPTI_ERROR_NOT_INITIALIZED", QKV, CUDA) == Ran(
        "cudnn", None, "no profile: CUPTI_ERROR_NOT_INITIALIZED"
    )


def test_a_profiler_that_does_not_start_costs_a_reason_and_no_point(monkeypatch):
    def refuses(**_):
        raise RuntimeError("CUPTI_ERROR_INSUFFICIENT_PRIVILEGES\nmore")

    monkeypatch.setattr(torch.profiler, "profile", refuses)
    seen = ran(own("eager-fp32"))
    assert seen.backend == "flash"  # what SDPA says it would choose
    assert seen.reason == "no profile: CUPTI_ERROR_INSUFFICIENT_PRIVILEGES"


def test_what_goes_wrong_while_looking_is_said_in_the_record(monkeypatch):
    monkeypatch.setattr(looking, "what_ran", lambda *_: 1 / 0)
    seen = ran(own("eager-fp32"))
    assert (seen.backend, seen.kernel, seen.reason) == (
        "unknown",
        None,
        "not seen: ZeroDivisionError: division by zero",
    )


# --- what really runs on a CPU ---


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        (own("eager-fp32"), ("flash", "torch")),
        (own("eager-fp32-math"), ("math", "recipe")),
        (own("compile-regional-fp32"), ("flash", "torch")),
        (public("eager-fp32"), ("flash", "torch")),
        (own("eager-fp32", ("train_step",)), ("flash", "torch")),
        (own("eager-fp32", ("trajectory",)), ("flash", "torch")),
        (
            load_point("tiny-windowed", "tiny-video", "eager-fp32", stages=("denoise_step",)),
            ("flash", "torch"),
        ),
        (
            load_point("tiny-ar", "tiny-clip", "eager-fp32", stages=("prefill", "decode_token")),
            ("flash", "torch"),
        ),
        (own("eager-fp32", ("text_encode",)), ("flash", "torch")),
    ],
    ids=lambda x: x.label if isinstance(x, Point) else "",
)
def test_the_backend_of_own_and_public_models_is_seen(point, expected):
    seen = ran(point)
    assert (seen.backend, seen.chosen_by) == expected
    assert seen.kernel is None
    assert ON_CPU in seen.reason


@pytest.mark.skipif(
    not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")),
    reason="no oneDNN here",
)
def test_own_attention_in_blocks_is_onednns(monkeypatch):
    monkeypatch.setattr(kernels, "ONEDNN", True)
    monkeypatch.setattr(kernels, "MIN_SCORES", 1)
    monkeypatch.setattr(
        kernels, "ATTENTION_IN_BLOCKS", True, raising=False
    )  # off on CPUs where it does not pay
    assert ran(own("eager-fp32")).backend == "onednn"
    assert ran(own("eager-fp32-math")).backend == "math"


def test_no_attention_no_record():
    assert ran(own("eager-fp32", ("vae_decode",))) is None


def test_a_look_costs_three_blocks_and_leaves_nothing_behind(monkeypatch):
    point, entered, whole = own("eager-fp32"), [], attention.AXES["all"]
    monkeypatch.setitem(attention.AXES, "all", lambda *args: entered.append(1) or whole(*args))
    before = kernels.attention, F.scaled_dot_product_attention
    calls, _ = build_calls(point, CPU)
    with torch.inference_mode():
        want = calls["denoise_step"]()
        assert len(entered) == 12  # six blocks, twice
        attention_ran(point, calls, CPU)
        assert len(entered) == 12 + 3
        assert (kernels.attention, F.scaled_dot_product_attention) == before
        assert torch.equal(calls["denoise_step"](), want)


def test_a_measured_point_hands_on_what_ran():
    from bench.measure.timing.clock import clock_for
    from bench.measure.worker.jobs import point_reply
    from support.plans import PLAN

    point = own("eager-fp32")
    counts = count_stages(point)
    quick = PLAN.model_copy(update={"min_samples": 2, "max_samples": 2, "max_s": 0.1})
    measured = measure_point(
        point, counts, CPU, clock_for(CPU), quick, prior={}, on_round=lambda *_: None
    )
    assert point_reply(point, counts, measured).attention_ran.backend == "flash"


def test_a_ceilings_attention_says_what_ran():
    def call() -> torch.Tensor:
        with sdpa.sdpa_backend("math"):
            return kernels.attention(*QKV)

    assert family_ran(call, CPU) == ("math", None)
    assert family_ran(lambda: None, CPU) == (None, "no attention call was seen")
    assert family_ran(lambda: 1 / 0, CPU) == (None, "not seen: ZeroDivisionError: division by zero")


# --- backends in SDPA's place ---


@pytest.fixture
def sage(monkeypatch):
    """A package sageattention that computes in float32 and keeps the shapes it was called with."""
    fake = ModuleType("sageattention")
    fake.shapes = []

    def sageattn(q, k, v, tensor_layout, is_causal, sm_scale):
        assert tensor_layout == "HND"
        assert not is_causal
        fake.shapes.append(tuple(q.shape))
        scores = q.float() @ k.float().mT * (sm_scale or q.shape[-1] ** -0.5)
        return (scores.softmax(-1) @ v.float()).to(q.dtype)

    fake.sageattn = sageattn
    monkeypatch.setitem(sys.modules, "sageattention", fake)
    return fake


def held_output(point: Point) -> torch.Tensor:
    calls, _ = build_calls(point, CPU)
    with torch.inference_mode():
        return calls["denoise_step"]().float()


@pytest.mark.parametrize("make", [own, public])
def test_own_and_public_models_go_through_another_backend(sage, make):
    plain = held_output(make("eager-bf16"))
    assert sage.shapes == []
    through = held_output(make("eager-bf16-sage"))
    assert sage.shapes
    assert (through - plain).norm() < 0.05 * plain.norm()
    assert F.scaled_dot_product_attention is torch._C._nn.scaled_dot_product_attention


@pytest.mark.parametrize("make", [own, public])
def test_the_record_says_that_another_backend_ran(sage, make):
    seen = ran(make("eager-bf16-sage"))
    assert (seen.backend, seen.chosen_by, seen.kernel) == ("sage", "recipe", None)


def test_what_another_backend_does_not_take_goes_to_sdpa(sage):
    def half(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.bfloat16)

    q, text = half(1, 2, 8, 64), half(1, 2, 5, 64)
    wide, grad, mask = (
        half(1, 2, 8, 80),
        half(1, 2, 8, 64).requires_grad_(),
        torch.ones(8, 8, dtype=torch.bool),
    )
    with sdpa.sdpa_backend("sage"):
        F.scaled_dot_product_attention(q, text, text)  # keys of another number
        assert sage.shapes == [(1, 2, 8, 64)]
        for args, given in (
            ((wide, wide, wide), {}),
            ((q.float(), q.float(), q.float()), {}),
            ((grad, grad, grad), {}),
            ((q, q, q), {"attn_mask": mask}),
            ((q, q, q), {"is_causal": True}),
            ((q, q, q), {"dropout_p": 0.5}),
            ((q, q[:, :1], q[:, :1]), {"enable_gqa": True}),
        ):
            out = F.scaled_dot_product_attention(*args, **given)
            assert out.shape == args[0].shape
        with torch.no_grad():
            F.scaled_dot_product_attention(grad, grad, grad)
    assert len(sage.shapes) == 2


def test_the_record_names_what_fell_back(sage):
    """Head size 80 of own attention is not taken."""
    point = own("eager-bf16-sage", **{"denoiser.width": 160})
    seen = ran(point)
    assert (seen.backend, seen.chosen_by) == ("flash", "recipe")
    assert sage.shapes == []


def test_a_version_that_changes_its_keys_in_place_is_given_a_copy(sage, monkeypatch):
    monkeypatch.setattr(sdpa, "_version", lambda package: "1.0.6")
    plain = sage.sageattn
    sage.sageattn = lambda q, k, v, **given: plain(q, k.sub_(k.mean(2, keepdim=True)), v, **given)
    q = torch.randn(1, 2, 8, 64, dtype=torch.bfloat16)
    k = torch.randn(1, 2, 8, 64, dtype=torch.bfloat16)
    kept = k.clone()
    with sdpa.sdpa_backend("sage"), torch.no_grad():
        F.scaled_dot_product_attention(q, k, k)
    assert torch.equal(k, kept)


@pytest.fixture
def flash3(monkeypatch):
    """PyTorch's registry of FlashAttention versions, which no CPU can fill."""
    fake = SimpleNamespace(active=None, changes=[])

    def become(version):
        fake.active = version
        fake.changes.append(version)

    monkeypatch.setattr(
        torch.nn.attention, "current_flash_attention_impl", lambda: fake.active, raising=False
    )
    monkeypatch.setattr(torch.nn.attention, "activate_flash_attention_impl", become, raising=False)
    monkeypatch.setattr(
        torch.nn.attention, "restore_flash_attention_impl", lambda: become(None), raising=False
    )
    return fake


def test_flash3_is_activated_where_it_changes_and_gone_for_other_recipes(flash3):
    for name in ("auto", "flash3", "flash3", "flash", "math", "flash3", "auto"):
        with sdpa.sdpa_backend(name):
            assert flash3.active == ("FA3" if name == "flash3" else None)
            assert kernels.attention(*QKV).shape == QKV[0].shape
    assert flash3.changes == ["FA3", None, "FA3", None]


@pytest.mark.parametrize("scale", [None, 0.3])
def test_fp8_attention_has_a_scale_for_each_head(flash3, monkeypatch, scale):
    """The operator's arithmetic, in float32 on the operands that it is given."""

    def reference(q, k, v, q_scale, k_scale, v_scale, given):
        assert {x.dtype for x in (q, k, v)} == {torch.float8_e4m3fn}
        assert {tuple(s.shape) for s in (q_scale, k_scale, v_scale)} == {(2, 3)}
        q, k, v = (
            x.float() * s[:, :, None, None] for x, s in ((q, q_scale), (k, k_scale), (v, v_scale))
        )
        return F.scaled_dot_product_attention(q, k, v, scale=given).bfloat16()

    monkeypatch.setattr(sdpa, "_flash_of_fp8", reference)
    spread = torch.tensor([1e-3, 1.0, 1e3])[:, None, None]  # heads of unlike magnitude
    q, k, v = (torch.randn(2, 3, n, 64) for n in (40, 50, 50))
    v = v * spread
    want = F.scaled_dot_product_attention(q, k, v, scale=scale)
    with torch.no_grad(), sdpa.sdpa_backend("fp8-flash3"):
        got = F.scaled_dot_product_attention(
            q.bfloat16(), k.bfloat16(), v.bfloat16(), scale=scale
        ).float()
    error = (
        (got - want).square().sum((0, 2, 3)) / want.square().sum((0, 2, 3))
    ).sqrt()  # of each head
    assert error.max() < 0.1
    assert error.min() > 1e-3
    assert sdpa.taken() == "fp8-flash3"


def test_the_largest_fp8_number_is_a_heads_largest():
    x = torch.randn(1, 2, 8, 16).bfloat16()
    x8, scale = sdpa.to_fp8(x)
    assert (x8.float().abs().amax((2, 3)) == 448).all()
    assert sdpa.to_fp8(torch.zeros(1, 1, 4, 16))[0].float().abs().max() == 0
    torch.testing.assert_close(
        x8.float() * scale[:, :, None, None], x.float(), rtol=2**-4 + 2**-7, atol=1e-2
    )


# --- the fastest inside the model ---


class Race:
    """Seconds by the backend that SDPA is held to."""

    def __init__(self, seconds: dict[str, float]):
        self.seconds, self.ran = seconds, []

    def time(self, call) -> float:
        call()
        self.ran.append(Race.current)
        return self.seconds[Race.current]

    def now(self) -> float:
        return 0.0

    current = ""


@pytest.fixture
def raced(monkeypatch):
    real, Race.current = fastest.sdpa_backend, ""

    def noting(name):
        Race.current = name
        return real(name)

    monkeypatch.setattr(fastest, "sdpa_backend", noting)


CPU_MACHINE = Machine("cpu", None, frozenset(), True)


def forward(head_dim: int = 16):
    seen = []

    def call():
        for _ in range(6):
            seen.append(1)
            kernels.attention(*torch.randn(3, 1, 2, 8, head_dim).unbind(0))

    return call, seen


@pytest.mark.parametrize("winner", ["auto", "flash", "math"])
def test_the_fastest_wins_after_three_rounds_in_turns(raced, winner):
    call, seen = forward()
    clock = Race({name: 0.01 if name == winner else 0.02 for name in ("auto", "flash", "math")})
    found = fastest_attention(call, CPU_MACHINE, clock)
    assert found.backend == winner
    assert found.seconds == clock.seconds
    assert clock.ran == ["auto", "flash", "math"] * 4
    assert len(seen) == 3 + 12 * 2  # found at the third, then two of six a run


def test_long_blocks_are_raced_once(raced):
    call, _ = forward()
    clock = Race({"auto": 1.2, "flash": 0.9, "math": 5.0})
    assert fastest_attention(call, CPU_MACHINE, clock).backend == "flash"
    assert len(clock.ran) == 6


def test_a_backend_without_a_kernel_is_no_candidate(raced, monkeypatch):
    real = kernels.attention

    def none_for_flash(q, k, v):
        if Race.current == "flash":
            raise RuntimeError("No available kernel. Aborting execution.")
        if Race.current == "math":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(q, k, v)

    monkeypatch.setattr(kernels, "attention", none_for_flash)
    call, _ = forward()
    assert fastest_attention(call, CPU_MACHINE, Race({"auto": 1e-3})).seconds == {"auto": 1e-3}
    assert (
        fastest_attention(lambda: None, CPU_MACHINE, Race({})).reason
        == "no attention call was seen to choose a backend by"
    )


def test_the_candidates_of_a_card_are_those_that_can_run_there():
    def candidates(machine: Machine) -> list[str]:
        return [
            n for n in fastest.CANDIDATES["cuda"] if sdpa.unsupported_reason(n, machine) is None
        ]

    assert candidates(Machine("cuda", (8, 0), frozenset(), True)) == ["cudnn", "flash", "efficient"]
    assert candidates(
        Machine("cuda", (9, 0), frozenset({"flash_attn_interface"}), True, frozenset({"FA3"}))
    ) == ["cudnn", "flash", "flash3", "efficient"]


@pytest.mark.parametrize("make", [own, public])
def test_the_record_of_the_fastest_has_all_candidates(make):
    point = make("fastest-attention-fp32")
    seen = ran(point)
    assert seen.chosen_by == "measured"
    assert set(seen.candidates_s) == {"auto", "flash", "math"}
    assert seen.backend in ("flash", "math")
    assert min(seen.candidates_s, key=seen.candidates_s.get) in ("auto", seen.backend)
    assert (
        point.recipe.identity()["attention"] == "fastest"
    )  # the choice is no part of the fingerprint


# --- tables ---


def test_tables_show_what_ran():
    from support.records import point_record

    kernel = "void pytorch_flash::flash_fwd_kernel<" + "x" * 200 + ">"
    left = point_record().model_copy(
        update={
            "attention_ran": AttentionRan(
                backend="cudnn",
                chosen_by="measured",
                kernel=kernel,
                candidates_s={"flash": 2e-3, "cudnn": 1e-3},
            )
        }
    )
    asked = point_record().model_copy(
        update={
            "attention_ran": AttentionRan(
                backend="math", chosen_by="recipe", kernel=None, reason=ON_CPU
            )
        }
    )
    assert attention_table([left, point_record(), asked]).texts == [
        [
            left.label,
            "cudnn",
            "measured",
            f"{kernel.removeprefix('void ')[:60]}…",
            "cudnn 1 ms, flash 2 ms",
        ],
        [asked.label, "math", "recipe", "–", ON_CPU],
    ]
    assert [attending(r) for r in (left, asked, point_record())] == ["attention by cudnn", "", ""]
    timing = summarise([1.0] * 5, [], "max_samples", True)
    probe = Probe(
        kind="attention",
        dtype="bf16",
        backend="auto",
        backend_ran="cudnn",
        flops=1,
        bytes_moved=None,
        shape={"batch": 1},
        timing=timing,
    )
    assert backend(probe) == "auto (cudnn)"
    assert backend(probe.model_copy(update={"backend_ran": None})) == "auto"
    assert backend(probe.model_copy(update={"backend": None})) == ""
