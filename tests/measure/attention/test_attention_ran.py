"""Which attention kernel ran: read from profiles, real on a CPU and made up of a card's; the
backends that recipes put in SDPA's place, by fake packages; and the one that is fastest inside the
model."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from bench.core.load import load_point
from bench.core.specs.point import Point
from bench.measure.attention import backends as sdpa
from bench.measure.attention import ran as looking
from bench.measure.attention.ran import (
    OPERATORS,
    Ran,
    attention_ran,
    family_of,
    family_ran,
    what_ran,
)
from bench.measure.points.build import build_calls, count_stages
from bench.measure.points.single import measure_point
from bench.measure.timing.sampling import summarise
from bench.report.tables.device import attending, attention_table, backend
from bench.results.records import AttentionRan, Probe
from models import kernels
from models.dit import attention
from support.measure.attention import own, public, ran

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


ON_CPU = "no kernel has a name on a CPU"


@pytest.fixture(autouse=True)
def _pytorchs_own_kernels(monkeypatch):
    """Not every CPU has oneDNN's bfloat16."""
    monkeypatch.setattr(kernels, "ONEDNN", False)


@pytest.mark.parametrize(
    ("kernel", "family"),
    [
        (
            "cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_7_"
            "64x128x128_4x1x1_kernel0_0",
            "cudnn",
        ),
        (
            "cudnn_generated_fort_native_sdpa_sm80_flash_fprop_f16_knob_30_"
            "64x64x128_4x1x1_kernel0_0",
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
            "fmha_cutlassF_bf16_aligned_64x128_rf_sm80("
            "PyTorchMemEffAttention::AttentionKernel<cutlass::bfloat16_t>)",
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
