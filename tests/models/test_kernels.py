"""Kernels for CUDA on a machine without a card: values on a CPU, and on fake CUDA tensors which
operators run; and what compilers are given."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from models import kernels
from models.layers import init_benchmark_weights
from models.public import zoo
from support.models.own import dit, vae
from support.models.zoo_reduced import REDUCED, reduced

CHANNELS_LAST = torch.channels_last_3d


class Operators(TorchDispatchMode):
    """(name, shape of the output) of what runs, in order."""

    def __init__(self):
        super().__init__()
        self.ran = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.ran.append(
            (
                func.overloadpacket.__name__,
                tuple(out.shape) if isinstance(out, torch.Tensor) else None,
            )
        )
        return out

    @property
    def names(self):
        return [name for name, _ in self.ran]


@pytest.fixture
def cuda_here(monkeypatch):
    """The kernels take what they are given for CUDA's: real numbers then show what is computed,
    meta what runs."""
    monkeypatch.setattr(kernels, "_on_cuda", lambda x: True)
    monkeypatch.setattr(kernels, "ONEDNN", False)


# --- linear layer and GELU ---


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_on_cuda_gelu_is_the_products_epilogue(dtype):
    with FakeTensorMode(), torch.no_grad(), Operators() as seen:
        x, weight, bias = (
            torch.empty(size, device="cuda", dtype=dtype) for size in ((2, 40, 16), (24, 16), (24,))
        )
        out = kernels.linear_gelu(x, weight, bias)
    assert "_addmm_activation" in seen.names
    assert not {"gelu", "addmm", "linear", "mm"} & set(seen.names)
    assert (out.shape, out.dtype, out.device.type, out.is_contiguous()) == (
        (2, 40, 24),
        dtype,
        "cuda",
        True,
    )


@pytest.mark.parametrize(("dtype", "gradients"), [(torch.float32, True), (torch.double, False)])
def test_gradients_and_other_dtypes_keep_the_plain_gelu(cuda_here, dtype, gradients):
    x, weight, bias = (
        torch.empty(size, device="meta", dtype=dtype) for size in ((2, 40, 16), (24, 16), (24,))
    )
    with torch.set_grad_enabled(gradients), Operators() as seen:
        kernels.linear_gelu(x, nn.Parameter(weight), bias)
    assert "gelu" in seen.names
    assert "_addmm_activation" not in seen.names


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_what_addmm_activation_computes(dtype, tolerance):
    """Its product, bias and layout on a CPU, whose GELU is erf's; PyTorch's own decomposition says
    tanh for CUDA."""
    from torch._decomp import decomposition_table

    x, weight, bias = (
        torch.randn(30, 16, dtype=dtype),
        torch.randn(24, 16, dtype=dtype),
        torch.randn(24, dtype=dtype),
    )
    got = torch._addmm_activation(bias, x, weight.t(), use_gelu=True)
    torch.testing.assert_close(
        got, F.gelu(F.linear(x, weight, bias)), rtol=tolerance, atol=tolerance
    )
    seen = []
    decompose = decomposition_table[torch.ops.aten._addmm_activation.default]

    class Gelu(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.aten.gelu.default:
                seen.append((kwargs or {}).get("approximate", "none"))
            return func(*args, **(kwargs or {}))

    with FakeTensorMode(), torch.no_grad(), Gelu():
        a, w, b = (torch.empty(s, device="cuda") for s in ((30, 16), (24, 16), (24,)))
        decompose(b, a, w.t(), use_gelu=True)
    assert seen == ["tanh"]


# --- VAE ---


@pytest.mark.parametrize("times", [(2, 2, 2), (1, 2, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_repeating_places_is_nearest_upsampling_in_the_same_layout(times, dtype):
    x = torch.randn(2, 6, 3, 4, 5, dtype=dtype).contiguous(memory_format=CHANNELS_LAST)
    got = kernels._repeated(x, times)
    want = F.interpolate(x, scale_factor=tuple(map(float, times)), mode="nearest")
    assert torch.equal(got, want)
    assert got.stride() == want.stride()
    assert got.is_contiguous(memory_format=CHANNELS_LAST)


@torch.no_grad()
def test_on_cuda_the_vae_turns_no_layout_and_its_last_convolution_has_8_channels(cuda_here):
    model = vae()
    meta = type(model)(model.config).to("meta", torch.bfloat16)
    with Operators() as seen:
        out = meta.decode(torch.empty(1, 4, 2, 2, 2, device="meta", dtype=torch.bfloat16))
    assert "upsample_nearest3d" not in seen.names
    convolutions = [shape for name, shape in seen.ran if name == "convolution"]
    assert [shape[1] % 8 for shape in convolutions] == [0] * len(convolutions)
    assert convolutions[-1][1] == 8
    assert out.shape[1] == 3


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 6e-2)])
@torch.no_grad()
def test_decoding_as_on_cuda_gives_the_same(cuda_here, monkeypatch, dtype, tolerance):
    model, latents = vae().to(dtype), torch.randn(1, 4, 3, 4, 4).to(dtype)
    got = model.decode(latents)
    monkeypatch.undo()
    want = model.decode(latents)
    assert (got - want).norm() < tolerance * want.norm()


@torch.no_grad()
def test_channels_of_zeros_change_nothing():
    x = torch.randn(1, 8, 3, 6, 6).contiguous(memory_format=CHANNELS_LAST)
    weight, bias = (
        torch.randn(3, 8, 3, 3, 3).contiguous(memory_format=CHANNELS_LAST),
        torch.randn(3),
    )
    for given_bias in (bias, None):
        got = kernels._with_channels_of_zeros(x, weight, given_bias, (1, 1, 1), (1, 1, 1), 5)
        torch.testing.assert_close(got, F.conv3d(x, weight, given_bias, 1, 1), rtol=1e-5, atol=1e-5)


VAES = {reduced(name)[0].vae.diffusers: name for name in REDUCED}


@pytest.mark.parametrize("kind", VAES)
@torch.no_grad()
def test_a_public_vae_with_weights_channels_last_gives_the_same(kind):
    model, workload = reduced(VAES[kind])
    plain, last = (
        zoo.build(model.vae, torch.device("cpu"), torch.float32).eval() for _ in range(2)
    )
    zoo.lay_channels_last(last)
    for module in (plain, last):
        init_benchmark_weights(module, 0)
    latents = torch.randn(
        1,
        model.denoiser.in_channels,
        *model.latent_shape(workload),
        generator=torch.Generator().manual_seed(1),
    )
    latents = latents[:, : model.vae.latent_channels]
    want, got = plain.decode(latents, workload.frames), last.decode(latents, workload.frames)
    assert (got - want).norm() <= 1e-4 * want.norm()


def test_which_public_vaes_hold_channels_last(monkeypatch):
    """Those without GroupNorm."""
    holding = {
        kind
        for kind, name in VAES.items()
        if zoo.holds_channels_last(
            zoo.build(reduced(name)[0].vae, torch.device("meta"), torch.float32)
        )
    }
    assert holding == {
        "AutoencoderKLWan",
        "AutoencoderKLHunyuanVideo15",
        "AutoencoderKLLTXVideo",
        "AutoencoderKLLTX2Video",
    }
    monkeypatch.setattr(zoo, "CHANNELS_LAST_ON", "meta")
    for name, laid in (("wan2.1-t2v-1.3b", True), ("cogvideox-2b", False)):
        weights = [
            p
            for p in zoo.build(
                reduced(name)[0].vae, torch.device("meta"), torch.bfloat16
            ).parameters()
            if p.ndim == 5 and p.shape[1] > 1 and p[0, 0].numel() > 1
        ]
        assert all(p.is_contiguous(memory_format=CHANNELS_LAST) == laid for p in weights)


# --- what compilers are given ---


def given(*shape, dtype=torch.float32):
    return torch.randn(*shape, dtype=dtype)


KEPT = {
    "product": lambda dtype: (
        given(2, 40, 16, dtype=dtype),
        given(24, 16, dtype=dtype),
        given(24, dtype=dtype),
        True,
    ),
    "product of a view": lambda dtype: (
        given(2, 40, 32, dtype=dtype)[..., :16],
        given(24, 16, dtype=dtype),
        None,
        False,
    ),
    "attention_in_blocks": lambda dtype: (
        given(3, 2, 70, 3, 16, dtype=dtype).transpose(2, 3).unbind(0)
    ),
    "norm_rotate": lambda dtype: (
        given(2, 40, 3, 4, 16, dtype=dtype)[:, :, 1],
        given(64, dtype=dtype),
        1e-6,
        given(40, 8, dtype=dtype),
        given(40, 8, dtype=dtype),
    ),
    "norm_rotate rotary alone": lambda dtype: (
        given(2, 40, 4, 16, dtype=dtype),
        None,
        1e-6,
        given(40, 8, dtype=dtype),
        given(40, 8, dtype=dtype),
    ),
    "convolution": lambda dtype: (
        given(1, 8, 3, 6, 6, dtype=dtype).contiguous(memory_format=CHANNELS_LAST),
        given(5, 8, 3, 3, 3, dtype=dtype).contiguous(memory_format=CHANNELS_LAST),
        given(5, dtype=dtype),
        [1, 2, 2],
        [0, 1, 1],
    ),
}


@pytest.mark.skipif(not kernels.ONEDNN, reason="a build of PyTorch without oneDNN")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", KEPT)
def test_operators_for_compilers_say_the_shape_and_strides_they_give(case, dtype):
    op = getattr(torch.ops.ldt_bench, case.split()[0]).default
    args = KEPT[case](dtype)
    with torch.no_grad():
        torch.library.opcheck(op, args, test_utils=("test_schema", "test_faketensor"))
        with FakeTensorMode() as mode:
            shaped = op(*(mode.from_tensor(a) if isinstance(a, torch.Tensor) else a for a in args))
        real = op(*args)
    assert (shaped.shape, shaped.stride(), shaped.dtype) == (real.shape, real.stride(), real.dtype)


@pytest.mark.skipif(not kernels.ONEDNN, reason="a build of PyTorch without oneDNN")
@torch.no_grad()
@pytest.mark.parametrize("avx512", [True, False])
def test_a_compiled_model_keeps_the_fast_kernels(monkeypatch, avx512):
    """Without AVX-512 MKL is as fast as oneDNN in float32, and Inductor does the rest better."""
    monkeypatch.setattr(kernels, "AVX512", avx512)
    monkeypatch.setattr(kernels, "ATTENTION_IN_BLOCKS", avx512)
    monkeypatch.setattr(kernels, "MIN_SCORES", 1)
    torch._dynamo.reset()
    graphs = []

    def keep(graph, _):
        graphs.append({str(n.target) for n in graph.graph.nodes if n.op == "call_function"})
        return graph

    model, x, t = dit(), torch.randn(1, 4, 4, 8, 8), torch.rand(1)
    compiled = torch.compile(model, backend=keep, fullgraph=True)
    torch.testing.assert_close(compiled(x, t), model(x, t), rtol=1e-4, atol=1e-4)
    (ran,) = graphs
    own = {"ldt_bench.product.default", "ldt_bench.attention_in_blocks.default"}
    assert own <= ran if avx512 else not own & ran
    torch._dynamo.reset()
    with torch.enable_grad():  # gradients: PyTorch's own operators, as in eager
        torch.compile(model, backend=keep, fullgraph=True)(x, t).sum().backward()
    assert not any(name.startswith("ldt_bench") for name in graphs[-1])
    torch._dynamo.reset()


@pytest.mark.parametrize(("tokens", "copied"), [(131_072, False), (184_320, True)])
def test_values_past_2_to_the_31_are_copied(cuda_here, tokens, copied):
    """15,360 elements lie between two tokens of sora-20b: 184,320 x 15,360 = 2.83e9, over 2^31."""
    qkv = torch.empty(1, tokens, 3 * 5120, device="meta", dtype=torch.bfloat16)
    v = qkv[..., 2 * 5120 :].unflatten(-1, (40, 128)).transpose(1, 2)
    given = kernels._in_32_bits(v)
    assert (given is not v) == copied
    assert given.stride(2) == (128 if copied else 15_360)
