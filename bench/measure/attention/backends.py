"""The attention that a recipe asks for, as a setting that calls run under.  Part of the recipe
because on Hopper backends differ by a factor of two.

Four are backends of PyTorch's SDPA.  FlashAttention-3 takes the place of SDPA's FlashAttention-2,
by PyTorch's own registry. SageAttention and FlashAttention-3 on fp8 operands are put in SDPA's
place; what they do not take goes to SDPA.

Shapes: B batch, A heads, N queries, L keys, E head_dim.
"""

import contextlib
import importlib
import importlib.metadata
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from bench.measure.device.machine import Machine
from models import kernels

BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
AMPERE, HOPPER = (8, 0), (9, 0)
FLASH3_FIRST = [
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]
SAGE_HEAD_DIMS = (64, 96, 128)  # of sageattention 1.0.6; 2.x pads to the next of 64 and 128
FP8 = torch.float8_e4m3fn
HALVES = (torch.bfloat16, torch.float16)
FLASH3_HOW = "FlashAttention-3, built from the folder hopper of its repository"


def sdpa_backend(name: str) -> contextlib.AbstractContextManager:
    """Attention by the backend of that name; "auto", and "fastest" where nothing chose yet, leave
    PyTorch's choice."""
    if name in BACKENDS:
        return _of_pytorch([BACKENDS[name]])
    return {
        "auto": _of_pytorch,
        "fastest": _of_pytorch,
        "flash3": _by_flash3,
        "sage": _by_sage,
        "fp8-flash3": _by_fp8_flash3,
    }[name]()


def unsupported_reason(backend: str, machine: Machine) -> str | None:
    """Why a backend cannot run on this machine, or None."""
    if backend in ("cudnn", "efficient") and machine.kind != "cuda":
        return f"attention {backend} needs CUDA"
    why = None
    if backend == "sage":
        why = machine.lacks_capability(AMPERE) or machine.lacks_package(
            "sageattention", "pip install 'ldt-bench[attention]'"
        )
    if backend in ("flash3", "fp8-flash3"):
        why = (
            machine.lacks_capability(HOPPER, HOPPER)
            or machine.lacks_package("flash_attn_interface", FLASH3_HOW)
            or (
                None
                if "FA3" in machine.flash_impls
                else (
                    "needs a PyTorch with torch.nn.attention.activate_flash_attention_impl, as"
                    " 2.11 has"
                )
            )
        )
    return f"attention {backend} {why}" if why else None


@contextlib.contextmanager
def _of_pytorch(backends: list[SDPBackend] | None = None) -> Iterator[None]:
    """SDPA with its own FlashAttention, held to these backends or left alone."""
    _flash_impl(None)
    with sdpa_kernel(backends) if backends else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def _by_flash3() -> Iterator[None]:
    """SDPA with FlashAttention-3 in the place of 2, and first; what it does not take goes on to the
    next backend."""
    _flash_impl("FA3")
    with sdpa_kernel(FLASH3_FIRST, set_priority=True):
        yield


def _flash_impl(wanted: str | None) -> None:
    """Let PyTorch's FlashAttention be this version (None: its own).  Registering takes a fraction
    of a millisecond, so it is done where it changes and not undone after each call."""
    current = getattr(torch.nn.attention, "current_flash_attention_impl", lambda: None)()
    if wanted == current:
        return
    if wanted is None:
        torch.nn.attention.restore_flash_attention_impl()
    else:
        torch.nn.attention.activate_flash_attention_impl(wanted)


def _not_taken(
    q: Tensor, k: Tensor, attn_mask: Tensor | None, dropout_p: float, is_causal: bool
) -> bool:
    """Is this more than softmax(Q K^T) V without gradients, or of other operands than both
    replacements take?"""
    wants_gradient = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad)
    return (
        attn_mask is not None
        or dropout_p > 0
        or is_causal
        or wants_gradient
        or q.dtype not in HALVES
        or q.ndim != 4
        or q.shape[1] != k.shape[1]
    )


@contextlib.contextmanager
def _by_sage() -> Iterator[None]:
    sageattn = importlib.import_module("sageattention").sageattn
    in_place = _version("sageattention").startswith(
        "1."
    )  # it takes the keys' mean off the caller's own tensor

    def sage(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        attn_mask: Tensor | None,
        dropout_p: float,
        is_causal: bool,
        scale: float | None,
        enable_gqa: bool,
    ) -> Tensor | None:
        if _not_taken(q, k, attn_mask, dropout_p, is_causal) or q.shape[-1] not in SAGE_HEAD_DIMS:
            return None
        q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
        return sageattn(
            q, k.clone() if in_place else k, v, tensor_layout="HND", is_causal=False, sm_scale=scale
        )

    with _of_pytorch(), _replaced_by("sage", sage):
        yield


_taken: str | None = None


def note_taken(name: str | None) -> None:
    """What computed the last attention call in SDPA's place; None: SDPA did."""
    global _taken
    _taken = name


def taken() -> str | None:
    """What `note_taken` was last told."""
    return _taken


def _replaced_by(
    name: str, other: Callable[..., Tensor | None]
) -> contextlib.AbstractContextManager[None]:
    def attend(*args: Any, **given: Any) -> Tensor | None:
        out = other(*args, **given)
        note_taken(None if out is None else name)
        return out

    return kernels.attention_by(attend)


@cache
def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


@contextlib.contextmanager
def _by_fp8_flash3() -> Iterator[None]:
    with _by_flash3(), _replaced_by("fp8-flash3", fp8_flash3):
        yield


def fp8_flash3(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    attn_mask: Tensor | None,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
    **_: Any,
) -> Tensor | None:
    """FlashAttention-3 on fp8 operands, each with a scale for each head; None for what it does not
    take.

    q (B, A, N, E), k and v (B, A, L, E) -> (B, A, N, E) in their dtype (arXiv 2407.08608, section
    3.3; without its incoherent processing).  Scaling and casting are passes of their own and part
    of what is timed."""
    if _not_taken(q, k, attn_mask, dropout_p, is_causal) or q.shape[-1] > 256 or q.shape[-1] % 16:
        return None
    (q8, q_scale), (k8, k_scale), (v8, v_scale) = (to_fp8(x) for x in (q, k, v))
    return _flash_of_fp8(q8, k8, v8, q_scale, k_scale, v_scale, scale).to(q.dtype)


def _flash_of_fp8(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_scale: Tensor,
    k_scale: Tensor,
    v_scale: Tensor,
    scale: float | None,
) -> Tensor:
    """By the operator that PyTorch's FlashAttention-3 registers; dropout, causality and the mask
    are off."""
    quantised = torch.ops.aten._scaled_dot_product_flash_attention.quantized
    return quantised(q, k, v, q_scale, k_scale, v_scale, 0.0, False, False, scale=scale)[0]


def to_fp8(x: Tensor) -> tuple[Tensor, Tensor]:
    """x (B, A, N, E) -> the same in float8_e4m3fn, and what to multiply it by (B, A), float32: each
    head's largest magnitude becomes the format's."""
    scale = x.abs().amax(dim=(2, 3)).float().clamp(min=1e-12) / torch.finfo(FP8).max
    return (x * (1 / scale).to(x.dtype)[:, :, None, None]).to(FP8), scale
