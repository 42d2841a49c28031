"""The products of own models, by the fastest kernel that this device has for them.

PyTorch's own choice, but for a CPU without gradients.  There float32 matrix products go to MKL, which takes AVX2 on
processors that are not Intel's, attention to a kernel that no bfloat16 unit serves, and a float32 3D convolution on one
thread to im2col; oneDNN serves all three (docs/log.md has what each gave).  What is computed is the same, and what is
counted too: on meta, PyTorch's operators run.

Shapes: B batch, A heads, N queries, L keys, E head_dim, D channels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
MIN_ROWS = 32                  # of a product: under it a library's set-up outweighs what it saves
MIN_SCORES = 2**16             # of a head: the same for attention
SCORES_BYTES = 3 * 2**19       # of a block of attention scores: what stays in a core's cache
# oneDNN's bfloat16 wants AVX-512 or AVX-NE-CONVERT; without them its products raise, and PyTorch's own run.
BF16 = ONEDNN and torch.ops.mkldnn._is_mkldnn_bf16_supported()
DTYPES = (torch.float32, torch.bfloat16) if BF16 else (torch.float32,)


def _by_onednn(x: Tensor, weight: Tensor) -> bool:
    """Compilers see PyTorch's operators, and so do tensor subclasses (quantised weights)."""
    return (ONEDNN and x.device.type == "cpu" and x.dtype in DTYPES and weight.dtype == x.dtype
            and type(x) is Tensor and type(weight) in (Tensor, nn.Parameter)
            and not torch.is_grad_enabled() and not torch.compiler.is_compiling())


def is_plain_cpu(x: Tensor) -> bool:
    """Nothing but numbers on a CPU: neither gradients nor a compiler look on."""
    return _by_onednn(x, x)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (..., N, D_in), weight (D_out, D_in) -> (..., N, D_out)."""
    if x.ndim >= 2 and x.shape[-2] >= MIN_ROWS and _by_onednn(x, weight):
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return F.linear(x, weight, bias)


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Tanh-GELU of a linear layer, in one pass over its output where that can be had.  (..., N, D_in) -> (..., N, D_out)."""
    if x.ndim >= 2 and x.shape[-2] >= MIN_ROWS and _by_onednn(x, weight):
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "gelu", [], "tanh")
    return F.gelu(F.linear(x, weight, bias), approximate="tanh")


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(Q K^T / sqrt(E)) V.  q (B, A, N, E), k and v (B, A, L, E) -> (B, A, N, E), heads inside tokens in memory."""
    if q.shape[2] * k.shape[2] >= MIN_SCORES and _left_to_us() and _by_onednn(q, k):
        return _attention_in_blocks(q, k, v)
    return F.scaled_dot_product_attention(q, k, v)


def _left_to_us() -> bool:
    """No recipe holds SDPA to one backend (`sdpa_kernel`)."""
    return torch.backends.cuda.flash_sdp_enabled() and torch.backends.cuda.math_sdp_enabled()


def _attention_in_blocks(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """So many queries of a head at a time that their scores stay in cache between the two products."""
    (batch, heads, n, e), length = q.shape, k.shape[2]
    blocks = max(1, -(-n * length * q.element_size() // SCORES_BYTES))
    rows = max(64, -(-n // blocks))
    product = torch.ops.mkldnn._linear_pointwise
    out = q.new_empty(batch, n, heads, e)
    scaled = torch.mul(q, e**-0.5, out=q.new_empty(q.shape))          # and contiguous, whatever q was
    for b in range(batch):
        for a in range(heads):
            keys, values = k[b, a].contiguous(), v[b, a].t().contiguous()            # (L, E), (E, L)
            for i in range(0, n, rows):
                scores = product(scaled[b, a, i:i + rows], keys, None, "none", [], "")
                out[b, i:i + rows, a] = product(scores.softmax(-1), values, None, "none", [], "")
    return out.transpose(1, 2)


def norm_rotate(x: Tensor, weight: Tensor | None, eps: float, cos: Tensor | None, sin: Tensor | None) -> Tensor:
    """RMS norm over as many of x's last channels as `weight` has, then rotary positions; either may be left out.

    x (B, N, A, E), weight (A E,) or (E,), cos and sin (N, E/2) -> (B, N, A, E).  In float32 within, as a complex product:
    PyTorch's RMS norm on a CPU is a chain of operators, each of which reads and writes all of x."""
    out = x.float()
    if weight is not None:
        flat = out.flatten(-2) if weight.numel() > x.shape[-1] else out
        scale = torch.linalg.vector_norm(flat, dim=-1, keepdim=True).square_().div_(flat.shape[-1]).add_(eps).rsqrt_()
        flat = flat.mul_(weight) if flat.is_contiguous() and out is not x else flat * weight
        out = flat.mul_(scale).view(x.shape)
    elif out is x:
        out = x.clone()
    if cos is not None:
        turn = torch.complex(cos.float(), sin.float())[:, None]                          # (N, 1, E/2)
        torch.view_as_complex(out.unflatten(-1, (-1, 2))).mul_(turn)
    return out.to(x.dtype)


def mean_square_of_channels(x: Tensor) -> Tensor:
    """x (B, C, T, H, W), channels last in memory, on a CPU in bfloat16 -> the mean over channels in each of them, same shape.

    As a product with a matrix of 1 / C: a bfloat16 operand that is broadcast along the fastest axis is not vectorised."""
    channels = x.shape[1]
    mean = x.new_full((channels, channels), 1 / channels)
    squares = x.square().permute(0, 2, 3, 4, 1)
    return torch.ops.mkldnn._linear_pointwise(squares, mean, None, "none", [], "").permute(0, 4, 1, 2, 3)


def conv3d(x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, ...], padding: tuple[int, ...]) -> Tensor:
    """x (B, C_in, T, H, W), weight (C_out, C_in, ...) -> (B, C_out, T', H', W')."""
    if _by_onednn(x, weight):
        return torch.mkldnn_convolution(x, weight, bias, padding, stride, (1, 1, 1), 1)
    return F.conv3d(x, weight, bias, stride, padding)
