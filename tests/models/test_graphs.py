"""Own models compile as one graph, and the kernels that a CPU prefers compute what PyTorch's do."""

import pytest
import torch

from models import kernels
from support.models.own import KINDS, dit, inputs, vae


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize(
    "kind", [k for k in KINDS if k != "windowed"]
)  # FlexAttention is compiled by itself
@torch.no_grad()
def test_every_block_kind_is_one_graph(kind):
    model = dit(**KINDS[kind])
    x, t, condition = inputs(model, (2, 4, 4))
    whole = torch.compile(model, backend="eager", fullgraph=True)  # raises at a graph break
    torch.testing.assert_close(
        whole(x, t, **condition), model(x, t, **condition), rtol=1e-4, atol=1e-4
    )


@torch.no_grad()
def test_decoding_is_one_graph():
    model, latents = vae(), torch.randn(1, 4, 2, 2, 2)
    whole = torch.compile(model.decode, backend="eager", fullgraph=True)
    torch.testing.assert_close(whole(latents), model.decode(latents), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("length", [300, 64])
@torch.no_grad()
def test_attention_in_blocks_is_attention(monkeypatch, dtype, tolerance, length):
    """Blocks that do not divide the queries, keys of another number, operands that are views."""
    monkeypatch.setattr(kernels, "ATTENTION_IN_BLOCKS", kernels.ONEDNN)
    monkeypatch.setattr(kernels, "SCORES_BYTES", 2**16)
    monkeypatch.setattr(kernels, "MIN_SCORES", 1)
    q = torch.randn(2, 211, 3, 16, dtype=dtype).transpose(1, 2)
    k, v = torch.randn(2, 2, length, 3, 16, dtype=dtype).transpose(2, 3).unbind(0)
    want = torch.nn.functional.scaled_dot_product_attention(*(x.double() for x in (q, k, v)))
    got = kernels.attention(q, k, v)
    assert got.shape == want.shape
    assert (got - want).norm() < tolerance * want.norm()


@torch.no_grad()
def test_a_recipe_that_holds_attention_to_a_backend_gets_it(monkeypatch):
    monkeypatch.setattr(kernels, "ATTENTION_IN_BLOCKS", kernels.ONEDNN)
    monkeypatch.setattr(kernels, "MIN_SCORES", 1)
    monkeypatch.setattr(kernels, "_attention_in_blocks", lambda *qkv: 1 / 0)
    q = torch.randn(1, 1, 64, 8)
    with torch.nn.attention.sdpa_kernel([torch.nn.attention.SDPBackend.FLASH_ATTENTION]):
        kernels.attention(q, q, q)
    if kernels.ONEDNN:
        with pytest.raises(ZeroDivisionError):
            kernels.attention(q, q, q)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("kind", ["cross shared", "dual", "plain"])
@torch.no_grad()
def test_the_kernels_of_a_cpu_agree_with_those_that_take_gradients(kind, dtype, tolerance):
    """With gradients on, PyTorch's own operators run."""
    model = dit(**KINDS[kind]).to(dtype)
    x, t, condition = inputs(model, (3, 8, 8))
    given = {k: v.to(dtype) for k, v in condition.items()}
    fast = model(x.to(dtype), t, **given)
    with torch.enable_grad():
        plain = model(x.to(dtype), t, **given)
    assert (fast - plain).norm() < tolerance * plain.norm()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 4e-2)])
@torch.no_grad()
def test_decoding_without_gradients_agrees_with_decoding_with_them(dtype, tolerance):
    model, latents = vae().to(dtype), torch.randn(1, 4, 3, 4, 4).to(dtype)
    fast = model.decode(latents)
    with torch.enable_grad():
        plain = model.decode(latents)
    assert (fast - plain).norm() < tolerance * plain.norm()
