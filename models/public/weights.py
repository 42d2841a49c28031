"""Weights of a local folder into a module: safetensors only, since a pickle may run code.  Nothing
is downloaded."""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
INDEX = "diffusion_pytorch_model.safetensors.index.json"


@torch.no_grad()
def load_weights(module: nn.Module, folder: str | Path) -> None:
    """Copy the tensors of `folder` (one part of a pipeline in diffusers' layout) into `module`, in
    its dtype and device.

    Raises ValueError, in one line, for a missing folder or file, pickles, and names or shapes that
    do not fit; the module is then left as it was."""
    files, wanted = _files(Path(folder)), module.state_dict()
    if any(tensor.is_meta for tensor in wanted.values()):
        raise ValueError(
            f"weights {folder}: the model is on meta, which holds no values; build it on a device"
        )
    _check(Path(folder), wanted, files)
    for file in dict.fromkeys(files.values()):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - a safetensors handle is no mapping
                wanted[name].copy_(tensors.get_tensor(name))


def _files(folder: Path) -> dict[str, Path]:
    """Tensor's name -> the file it is in."""
    if not folder.is_dir():
        raise ValueError(f"weights {folder}: no such folder")
    index = folder / INDEX
    if index.is_file():
        try:
            named = {
                name: folder / file
                for name, file in json.loads(index.read_text())["weight_map"].items()
            }
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ValueError(f"weights {index}: not an index of safetensors files") from None
        for file in dict.fromkeys(named.values()):
            if file.parent != folder or file.suffix != ".safetensors":
                raise ValueError(
                    f"weights {index}: {file.name} is not a safetensors file of this folder"
                )
            if not file.is_file():
                raise ValueError(f"weights {file}: no such file, though the index names it")
    found = sorted(set(named.values())) if index.is_file() else sorted(folder.glob("*.safetensors"))
    if not found:
        pickles = sorted(f.name for f in folder.iterdir() if f.suffix in PICKLES)
        raise ValueError(
            f"weights {folder}: no .safetensors file"
            + (f"; {pickles[0]} is a pickle, which may run code and is not read" if pickles else "")
        )
    if len(found) > 1 and not index.is_file():
        raise ValueError(f"weights {folder}: {len(found)} .safetensors files and no {INDEX}")
    files: dict[str, Path] = {}
    for file in found:
        try:
            with safe_open(file, framework="pt") as tensors:
                files.update(dict.fromkeys(tensors.keys(), file))
        except (SafetensorError, OSError) as error:
            raise ValueError(f"weights {file}: not a safetensors file: {error}") from None
    return files


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
