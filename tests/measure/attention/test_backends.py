"""Other attention backends: what they do not take goes to SDPA, and the record says so."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from bench.core.specs.point import Point
from bench.measure.attention import backends as sdpa
from bench.measure.points.build import build_calls
from models import kernels
from support.measure.attention import own, public, ran

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def _pytorchs_own_kernels(monkeypatch):
    """Not every CPU has oneDNN's bfloat16."""
    monkeypatch.setattr(kernels, "ONEDNN", False)


QKV = tuple(torch.randn(3, 1, 2, 8, 16).unbind(0))


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
