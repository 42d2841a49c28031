"""The products of own models, by the fastest kernel that this device has for them.

PyTorch's own choice, but for a CPU without gradients.  There float32 matrix products go to MKL,
which takes AVX2 on processors that are not Intel's, attention to a kernel that no bfloat16 unit
serves, and a float32 3D convolution on one thread to im2col; oneDNN serves all three (docs/log.md
has what each gave).  Where a CPU has no unit for bfloat16, its products run in float32: PyTorch's
own are a loop there.  What is computed is the same, and what is counted too: on meta, PyTorch's
operators run.

A compiler gets the same kernels as operators of their own (namespace ldt_bench), each with the
shape and the strides of what it gives.

Shapes: B batch, A heads, N queries, L keys, E head_dim, D channels.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, library, nn

ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
# Without it, oneDNN has no bfloat16 product.
AVX512 = ONEDNN and torch.ops.mkldnn._is_mkldnn_bf16_supported()
ATTENTION_IN_BLOCKS = AVX512  # on AVX2 PyTorch's own is faster: 38 ms against 48 (docs/log.md)
MIN_ROWS = 32  # of a product: under it a library's set-up outweighs what it saves
MIN_SCORES = 2**16  # of a head: the same for attention
SCORES_BYTES = 3 * 2**19  # of a block of attention scores: what stays in a core's cache
DTYPES = (torch.float32, torch.bfloat16)
HALVES = (torch.bfloat16, torch.float16)
# Of a convolution in 16 bits: tensor cores take no fewer (NVIDIA, "Convolutional Layers").
CHANNELS_AT_ONCE = 8
CUBLASLT_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def _by_onednn(x: Tensor, weight: Tensor) -> bool:
    """Tensor subclasses (quantised weights) have kernels of their own."""
    if x.dtype == torch.float32 and not AVX512 and torch.compiler.is_compiling():
        return False  # MKL is as fast there, and Inductor fuses what is around it
    return (
        ONEDNN
        and x.device.type == "cpu"
        and x.dtype in DTYPES
        and weight.dtype == x.dtype
        and type(x) is Tensor
        and type(weight) in (Tensor, nn.Parameter)
        and not torch.is_grad_enabled()
    )


def _on_cuda(x: Tensor) -> bool:
    return x.device.type == "cuda"


def is_plain_cpu(x: Tensor) -> bool:
    """Nothing but numbers on a CPU: no gradients look on."""
    return _by_onednn(x, x)


def _for_compilers(schema: str, shaped: Callable[..., Tensor]) -> Callable:
    """A function that compilers keep whole, as an operator with this schema; `shaped` gives its
    output's shape and strides.

    Called outside of a compiler it is the plain function: an operator's dispatch costs
    microseconds."""

    def registered(run: Callable[..., Tensor]) -> Callable[..., Tensor]:
        name = run.__name__.lstrip("_")
        library.custom_op(
            f"ldt_bench::{name}", run, mutates_args=(), device_types="cpu", schema=schema
        ).register_fake(shaped)
        kept = getattr(torch.ops.ldt_bench, name).default

        def call(*args: Any) -> Tensor:
            return kept(*args) if torch.compiler.is_compiling() else run(*args)

        return call

    return registered


@_for_compilers(
    "(Tensor x, Tensor weight, Tensor? bias, bool gelu) -> Tensor",
    lambda x, weight, bias, gelu: x.new_empty(*x.shape[:-1], weight.shape[0]),
)
def _product(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool) -> Tensor:
    """(..., D_in) -> (..., D_out), contiguous; with `gelu` its tanh-GELU."""
    out = torch.ops.mkldnn._linear_pointwise(
        *_taken(x, weight, bias), *(("gelu", [], "tanh") if gelu else ("none", [], ""))
    )
    return out.to(x.dtype)


def _taken(*given: Tensor | None) -> list[Tensor | None]:
    """Operands in a dtype that oneDNN multiplies here."""
    return list(given) if AVX512 else [t if t is None else t.float() for t in given]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (..., N, D_in), weight (D_out, D_in) -> (..., N, D_out)."""
    if x.ndim >= 2 and x.shape[-2] >= MIN_ROWS and _by_onednn(x, weight):
        return _product(x, weight, bias, False)
    return F.linear(x, weight, bias)


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Tanh-GELU of a linear layer, in one pass over its output where that can be had.  (..., N,
    D_in) -> (..., N, D_out)."""
    if x.ndim >= 2 and x.shape[-2] >= MIN_ROWS and _by_onednn(x, weight):
        return _product(x, weight, bias, True)
    if _by_cublaslt(x, weight, bias):
        return torch._addmm_activation(bias, x.flatten(0, -2), weight.t(), use_gelu=True).unflatten(
            0, x.shape[:-1]
        )
    return F.gelu(F.linear(x, weight, bias), approximate="tanh")


def _by_cublaslt(x: Tensor, weight: Tensor, bias: Tensor) -> bool:
    """On CUDA the GELU of `_addmm_activation` is the tanh one (elsewhere that of erf), as the
    product's epilogue; inside a compiler it would only be taken apart again."""
    return (
        _on_cuda(x)
        and x.ndim >= 2
        and x.dtype in CUBLASLT_DTYPES
        and weight.dtype == bias.dtype == x.dtype
        and not hasattr(weight, "__tensor_flatten__")  # quantised or sparse: a kernel of its own
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
    )


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(Q K^T / sqrt(E)) V.  q (B, A, N, E), k and v (B, A, L, E) -> (B, A, N, E), heads
    inside tokens in memory."""
    if (
        ATTENTION_IN_BLOCKS
        and q.shape[2] * k.shape[2] >= MIN_SCORES
        and _left_to_us()
        and _by_onednn(q, k)
    ):
        return _attention_in_blocks(q, k, v)
    return F.scaled_dot_product_attention(*map(_in_32_bits, (q, k, v)))


def _in_32_bits(x: Tensor) -> Tensor:
    """x (B, A, N, E), copied where a head's last token lies 2^31 elements in: a view into a fused
    projection does at 184,320 tokens of width 5,120, and PyTorch's memory-efficient kernel counts
    its offsets in 32 bits.  The copy takes a thousandth of such an attention's time."""
    far = _on_cuda(x) and x.stride(2) * x.shape[2] >= 2**31
    return x.contiguous() if far else x


# no compiler traces the question, and a recipe is one answer
@torch.compiler.assume_constant_result
def _left_to_us() -> bool:
    """No recipe holds SDPA to one backend (`sdpa_kernel`), or puts another in its place."""
    return (
        not _replaced
        and torch.backends.cuda.flash_sdp_enabled()
        and torch.backends.cuda.math_sdp_enabled()
    )


_replaced = False  # within attention_by


@contextlib.contextmanager
def attention_by(other: Callable[..., Tensor | None]) -> Iterator[None]:
    """Attention by `other`, of own models and of libraries that call
    F.scaled_dot_product_attention.

    It takes the arguments of that by keyword, and gives None for what it does not take: PyTorch's
    own then computes it. The name is replaced rather than a function mode entered, since a mode
    would cost time at every operator."""
    global _replaced
    own, before = F.scaled_dot_product_attention, _replaced

    def attend(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        given = {"attn_mask": attn_mask, "dropout_p": dropout_p, "is_causal": is_causal}
        given |= {"scale": scale, "enable_gqa": enable_gqa}
        out = other(query, key, value, **given)
        return own(query, key, value, **given) if out is None else out

    F.scaled_dot_product_attention, _replaced = attend, True
    try:
        yield
    finally:
        F.scaled_dot_product_attention, _replaced = own, before


@_for_compilers(
    "(Tensor q, Tensor k, Tensor v) -> Tensor",
    lambda q, k, v: q.new_empty(q.shape[0], q.shape[2], q.shape[1], v.shape[3]).transpose(1, 2),
)
def _attention_in_blocks(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """So many queries of a head at a time that their scores stay in cache between the two
    products."""
    (batch, heads, n, e), length = q.shape, k.shape[2]
    blocks = max(1, -(-n * length * q.element_size() // SCORES_BYTES))
    rows = max(64, -(-n // blocks))
    out = q.new_empty(batch, n, heads, e)
    scaled = torch.mul(q, e**-0.5, out=q.new_empty(q.shape))  # and contiguous, whatever q was
    for b in range(batch):
        for a in range(heads):
            keys, values = k[b, a].contiguous(), v[b, a].t().contiguous()  # (L, E), (E, L)
            for i in range(0, n, rows):
                scores = _product(scaled[b, a, i : i + rows], keys, None, False)
                out[b, i : i + rows, a] = _product(scores.softmax(-1), values, None, False)
    return out.transpose(1, 2)


@_for_compilers(
    "(Tensor x, Tensor? weight, float eps, Tensor? cos, Tensor? sin) -> Tensor",
    lambda x, *_: torch.empty_like(x, memory_format=torch.contiguous_format),
)
def norm_rotate(
    x: Tensor, weight: Tensor | None, eps: float, cos: Tensor | None, sin: Tensor | None
) -> Tensor:
    """RMS norm over as many of x's last channels as `weight` has, then rotary positions; either may
    be left out.

    x (B, N, A, E), weight (A E,) or (E,), cos and sin (N, E/2) -> (B, N, A, E).  In float32 within,
    as a complex product: PyTorch's RMS norm on a CPU is a chain of operators, each of which reads
    and writes all of x."""
    out = x.float()
    if weight is not None:
        flat = out.flatten(-2) if weight.numel() > x.shape[-1] else out
        scale = (
            torch.linalg.vector_norm(flat, dim=-1, keepdim=True)
            .square_()
            .div_(flat.shape[-1])
            .add_(eps)
            .rsqrt_()
        )
        flat = flat.mul_(weight) if flat.is_contiguous() and out is not x else flat * weight
        out = flat.mul_(scale).view(x.shape)
    elif out is x:
        out = x.clone()
    if cos is not None:
        turn = torch.complex(cos.float(), sin.float())[:, None]  # (N, 1, E/2)
        torch.view_as_complex(out.unflatten(-1, (-1, 2))).mul_(turn)
    return out.to(x.dtype, memory_format=torch.contiguous_format)


def mean_square_of_channels(x: Tensor) -> Tensor:
    """x (B, C, T, H, W), channels last in memory, on a CPU in bfloat16 -> the mean over channels in
    each of them, same shape.

    As a product with a matrix of 1 / C: a bfloat16 operand that is broadcast along the fastest axis
    is not vectorised."""
    channels = x.shape[1]
    mean = x.new_full((channels, channels), 1 / channels)
    return _product(x.square().permute(0, 2, 3, 4, 1), mean, None, False).permute(0, 4, 1, 2, 3)


def repeat_places(x: Tensor, times: tuple[int, int, int]) -> Tensor:
    """Nearest-neighbour upsampling, channels last in memory where x has them so.  x (B, C, T, H, W)
    -> (B, C, t T, h H, w W).

    On CUDA `upsample_nearest3d` makes its input contiguous first, and what it gives has to be
    turned back."""
    if _on_cuda(x) and not torch.is_grad_enabled():
        return _repeated(x, times)
    return F.interpolate(x, scale_factor=tuple(map(float, times)), mode="nearest")


def _repeated(x: Tensor, times: tuple[int, int, int]) -> Tensor:
    """In one copy."""
    (b, c, *size), (t, h, w) = x.shape, times
    repeated = x.permute(0, 2, 3, 4, 1)[:, :, None, :, None, :, None].expand(
        b, size[0], t, size[1], h, size[2], w, c
    )
    return repeated.reshape(b, size[0] * t, size[1] * h, size[2] * w, c).permute(0, 4, 1, 2, 3)


def conv3d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
) -> Tensor:
    """x (B, C_in, T, H, W), weight (C_out, C_in, ...) -> (B, C_out, T', H', W')."""
    if _by_onednn(x, weight):
        return _convolution(x, weight, bias, stride, padding)
    missing = -weight.shape[0] % CHANNELS_AT_ONCE
    if missing and _on_cuda(x) and x.dtype in HALVES and not torch.is_grad_enabled():
        return _with_channels_of_zeros(x, weight, bias, stride, padding, missing)
    return F.conv3d(x, weight, bias, stride, padding)


def _with_channels_of_zeros(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    missing: int,
) -> Tensor:
    """So many output channels more, made and cut off again.  Their FLOPs are not counted, as those
    of a product's padded tile are not: a count is of what the model defines."""
    weight = F.pad(weight, (0, 0) * 4 + (0, missing)).contiguous(
        memory_format=torch.channels_last_3d
    )
    bias = None if bias is None else F.pad(bias, (0, missing))
    return F.conv3d(x, weight, bias, stride, padding)[:, :-missing]


def _convolved(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: list[int], padding: list[int]
) -> Tensor:
    """What oneDNN's convolution of channels-last operands gives, without values."""
    size = [
        (n + 2 * p - k) // s + 1
        for n, p, k, s in zip(x.shape[2:], padding, weight.shape[2:], stride, strict=True)
    ]
    return torch.empty(
        (x.shape[0], weight.shape[0], *size),
        dtype=x.dtype,
        device=x.device,
        memory_format=torch.channels_last_3d,
    )


@_for_compilers(
    "(Tensor x, Tensor weight, Tensor? bias, int[] stride, int[] padding) -> Tensor", _convolved
)
def _convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
) -> Tensor:
    out = torch.mkldnn_convolution(*_taken(x, weight, bias), padding, stride, (1, 1, 1), 1)
    return out.to(x.dtype, memory_format=torch.channels_last_3d)
