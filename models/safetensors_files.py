"""The .safetensors files of a folder, by tensor.  Pickles are never read: they may run code.
Torch-free."""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
INDEXES = ("diffusion_pytorch_model.safetensors.index.json", "model.safetensors.index.json")


def tensors_in(place: Path) -> dict[str, Path]:
    """Tensor's name -> the file it is in, of a folder or of one file.

    Raises ValueError, in one line, for what is missing, damaged or a pickle."""
    if place.is_file():
        found, index = [place], None
    elif not place.is_dir():
        raise ValueError(f"weights {place}: no such folder")
    else:
        found, index = _files(place)
    if len(found) > 1 and index is None:
        raise ValueError(f"weights {place}: {len(found)} .safetensors files and no {INDEXES[0]}")
    files: dict[str, Path] = {}
    for file in found:
        try:
            with safe_open(file, framework="np") as tensors:
                files.update(dict.fromkeys(tensors.keys(), file))
        except (SafetensorError, OSError) as error:
            raise ValueError(f"weights {file}: not a safetensors file: {error}") from None
    return files


def _files(folder: Path) -> tuple[list[Path], Path | None]:
    """The files of a folder, and the index that names them."""
    index = next((folder / name for name in INDEXES if (folder / name).is_file()), None)
    if index is not None:
        return _indexed(index), index
    found = sorted(folder.glob("*.safetensors"))
    if not found:
        pickles = sorted(f.name for f in folder.iterdir() if f.suffix in PICKLES)
        raise ValueError(
            f"weights {folder}: no .safetensors file"
            + (f"; {pickles[0]} is a pickle, which may run code and is not read" if pickles else "")
        )
    return found, None


def _indexed(index: Path) -> list[Path]:
    try:
        named = {
            index.parent / file for file in json.loads(index.read_text())["weight_map"].values()
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"weights {index}: not an index of safetensors files") from None
    for file in sorted(named):
        if file.parent != index.parent or file.suffix != ".safetensors":
            raise ValueError(
                f"weights {index}: {file.name} is not a safetensors file of this folder"
            )
        if not file.is_file():
            raise ValueError(f"weights {file}: no such file, though the index names it")
    return sorted(named)
