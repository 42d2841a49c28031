"""Weights of a local folder into a module: safetensors only, since a pickle may run code.  Nothing
is downloaded."""

from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from models.safetensors_files import tensors_in


@torch.no_grad()
def load_weights(module: nn.Module, folder: str | Path) -> None:
    """Copy the tensors of `folder` (one part of a pipeline in diffusers' layout) into `module`, in
    its dtype and device.

    Raises ValueError, in one line, for a missing folder or file, pickles, and names or shapes that
    do not fit; the module is then left as it was."""
    files, wanted = tensors_in(Path(folder)), module.state_dict()
    if any(tensor.is_meta for tensor in wanted.values()):
        raise ValueError(
            f"weights {folder}: the model is on meta, which holds no values; build it on a device"
        )
    _check(Path(folder), wanted, files)
    for file in dict.fromkeys(files.values()):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - a safetensors handle is no mapping
                wanted[name].copy_(tensors.get_tensor(name))


def _check(folder: Path, wanted: dict[str, Tensor], files: dict[str, Path]) -> None:
    for what, names in (
        ("lacks", wanted.keys() - files.keys()),
        ("has unknown", files.keys() - wanted.keys()),
    ):
        if names:
            raise ValueError(
                f"weights {folder}: {what} {min(names)}"
                + (f" and {len(names) - 1} more" if len(names) > 1 else "")
            )
    for file in dict.fromkeys(files.values()):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - a safetensors handle is no mapping
                shape, own = tuple(tensors.get_slice(name).get_shape()), tuple(wanted[name].shape)
                if shape != own:
                    raise ValueError(f"weights {file}: {name} has shape {shape}, the model {own}")
