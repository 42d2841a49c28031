"""A module that others wrote, built without its weights being filled twice."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

M = TypeVar("M", bound=nn.Module)


def lay_out(make: Callable[[], M], device: torch.device, dtype: torch.dtype) -> M:
    """What `make` builds, with uninitialised parameters on `device`; on "meta" nothing is
    allocated.

    Classes compute rotary tables and the like while they are built.  Built wholly on meta, those
    would have no values to move to a device, so only parameters are laid out there.  Buffers keep
    the precision they were made in."""
    with device if device.type == "meta" else _EmptyOnMeta():
        module = make()
    laid: dict[int, nn.Parameter] = {}  # weights that two layers share stay one
    for submodule in module.modules():
        for name, p in submodule.named_parameters(recurse=False):
            if id(p) not in laid:
                empty = torch.empty_like(p, device=device, dtype=dtype)
                laid[id(p)] = nn.Parameter(empty, requires_grad=False)
            setattr(submodule, name, laid[id(p)])
        for name, b in submodule.named_buffers(recurse=False):
            assert device.type == "meta" or not b.is_meta, (
                f"{type(submodule).__name__}.{name} has no values"
            )
            setattr(submodule, name, b.to(device))
    return module


class _EmptyOnMeta(TorchFunctionMode):
    """torch.empty, by which layers make their parameters, lands on meta; everything else is
    real."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if func is torch.empty:
            kwargs = {**(kwargs or {}), "device": "meta"}
        return func(*args, **(kwargs or {}))
