"""A profile's seconds: each event's own, in the module it lies in; none lost, none twice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.measure.profile.events import (
    ATTENTION,
    CALL,
    MODULE,
    Event,
    by_module,
    kind_of,
    of_outermost,
    slices,
)


def event(name, start, end, *children, kernels=()):
    return Event(name, start, end, list(kernels), list(children))


BLOCK = event(
    CALL,
    0.0,
    10.0,
    event(
        MODULE + "M.fc",
        1.0,
        5.0,
        event("aten::linear", 1.5, 4.5, event("aten::addmm", 2.0, 4.0)),
    ),
    event(
        MODULE + "M.attn",
        5.0,
        9.0,
        event(ATTENTION, 6.0, 8.0, event("aten::bmm", 6.0, 7.0), event("aten::copy_", 7.0, 8.0)),
        event("aten::mul", 8.0, 8.5),
    ),
)


def seconds(root, **how):
    return {k: s for k, (s, _) in by_module(slices(of_outermost(root), **how)).items()}


def test_an_operator_holds_what_it_calls_and_marks_hold_nothing():
    assert seconds(BLOCK, kernels=False) == {
        ("M.fc", "linear"): 3.0,  # 1.5 to 4.5, addmm in it
        ("M.attn", "attention"): 2.0,  # a copy within attention is attention
        ("M.attn", "memory"): 0.5,
    }


def test_own_times_of_the_operators_sum_up_to_the_same():
    own = sum(piece.seconds for piece in slices(BLOCK, kernels=False))
    assert own == pytest.approx(5.5)


def test_what_recording_takes_is_taken_off_its_parent():
    # aten::linear has one event within it
    assert seconds(BLOCK, kernels=False, record_s=0.25)["M.fc", "linear"] == pytest.approx(2.75)
    assert seconds(BLOCK, kernels=False, record_s=100.0)["M.fc", "linear"] == 0.0


def test_on_cuda_the_kernels_are_counted_and_the_host_is_not():
    launched = event("aten::linear", 1.5, 4.5, event("aten::addmm", 2, 4, kernels=[("gemm", 0.2)]))
    attending = event(ATTENTION, 6, 8, event("aten::sdpa", 6, 7, kernels=[("anything", 0.3)]))
    root = event(
        CALL,
        0,
        10,
        event(MODULE + "M.fc", 1, 5, launched),
        event(MODULE + "M.attn", 5, 9, attending),
        event("aten::add", 9, 9.5, kernels=[("elementwise_kernel", 0.1)]),
    )
    assert seconds(root, kernels=True) == {
        ("M.fc", "linear"): 0.2,
        ("M.attn", "attention"): 0.3,
        ("", "memory"): 0.1,
    }


def test_compiled_regions_are_no_operators():
    inner = event("## Call CompiledFxGraph x ##", 1, 3, event("aten::addmm", 1, 2))
    root = event(CALL, 0, 4, event("Torch-Compiled Region: 0/0", 0.5, 3.5, inner))
    assert seconds(root, kernels=False) == {("", "linear"): 1.0}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("aten::addmm", "linear"),
        ("mkldnn::_linear_pointwise", "linear"),
        ("nvjet_hsh_128x256", "linear"),
        ("sm90_xmma_gemm_bf16bf16", "linear"),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop", "attention"),
        ("void pytorch_flash::flash_fwd_kernel", "attention"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu", "attention"),
        ("aten::convolution", "conv"),
        ("sm90_xmma_fprop_implicit_gemm_bf16", "conv"),
        ("aten::native_layer_norm", "norm"),
        ("aten::copy_", "memory"),
        ("void at::native::elementwise_kernel", "memory"),
    ],
)
def test_kinds_of_real_names(name, kind):
    assert kind_of(name) == kind


@st.composite
def trees(draw, depth=3, start=0.0, length=8.0):
    """Events that lie within their parents, one after another."""
    names = ["aten::addmm", "aten::mul", MODULE + "A", MODULE + "A.b", ATTENTION]
    children, at = [], start
    for _ in range(draw(st.integers(0, 3)) if depth else 0):
        span = draw(st.floats(0, (start + length - at) / 2))
        children.append(draw(trees(depth=depth - 1, start=at, length=span)))
        at += span
    return event(draw(st.sampled_from(names)), start, start + length, *children)


@given(trees(), st.floats(0, 0.1))
def test_no_second_is_counted_twice_and_none_is_below_zero(tree, record_s):
    root = event(CALL, 0.0, 8.0, tree)
    for flattened in (root, of_outermost(root)):
        pieces = list(slices(flattened, kernels=False, record_s=record_s))
        assert all(piece.seconds >= 0 for piece in pieces)
        assert sum(piece.seconds for piece in pieces) <= 8.0 + 1e-9
    own = sum(p.seconds for p in slices(root, kernels=False))
    outer = sum(p.seconds for p in slices(of_outermost(root), kernels=False))
    assert own == pytest.approx(outer, abs=1e-9)
