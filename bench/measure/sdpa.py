"""The attention backend a recipe asks for.  Part of the recipe because on Hopper they differ by a factor of two."""

import contextlib

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION, "math": SDPBackend.MATH,
}


def sdpa_backend(name: str) -> contextlib.AbstractContextManager:
    """Hold SDPA to one backend; "auto" leaves PyTorch's choice."""
    return contextlib.nullcontext() if name == "auto" else sdpa_kernel([BACKENDS[name]])


def unsupported_reason(backend: str, device: torch.device) -> str | None:
    """Why a backend cannot run on this kind of device, or None."""
    if backend in ("cudnn", "efficient") and device.type != "cuda":
        return f"attention {backend} needs CUDA"
    return None
