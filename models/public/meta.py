"""What two diffusers classes need before they run on meta tensors, which have shapes and no values.

Each does nothing on a real device.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.fx.experimental import _config as symbolic
from torch.overrides import TorchFunctionMode


@contextmanager
def mochi(x: Tensor) -> Iterator[None]:
    """Mochi opens autocast on the tensors' device, and there is none for meta; and it looks up the
    prompt's tokens by nonzero, whose length is a value: every token is taken as valid."""
    if not x.is_meta:
        yield
        return
    with (
        patch.object(torch, "autocast", lambda *_, **__: nullcontext()),
        symbolic.patch(meta_nonzero_assume_all_nonzero=True),
    ):
        yield


def known_masks(x: Tensor) -> Any:
    """HunyuanVideo-1.5 asks whether its image is all zeros, and sorts tokens into valid and padding
    by indexing with masks: both are values.  Here the image is all zeros and every token valid, as
    many in all as on a real device."""
    return _KnownMasks() if x.is_meta else nullcontext()


class _KnownMasks(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if func is torch.all:
            return torch.tensor(True)
        if (
            func is Tensor.__getitem__
            and isinstance(args[1], Tensor)
            and args[1].dtype is torch.bool
        ):
            return args[0][:0] if getattr(args[1], "_of_padding", False) else args[0]
        out = func(*args, **(kwargs or {}))
        if func is Tensor.__invert__:
            out._of_padding = True
        return out
