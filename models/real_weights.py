"""Real weights of a folder: which parts it holds, their digests, and where they lie.  Torch-free.

A point says which weights it has by their digests; the folder itself is named on the command line,
so that a record holds no path of a machine.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from models.safetensors_files import PICKLES, tensors_in

INHERITED = "LDT_BENCH_WEIGHTS"
"""What a process hands on to those that it starts: {digest: path} as JSON."""
CHUNK = 1 << 22

_places: dict[str, str] = {}


class WeightsNotNamed(ValueError):
    """Real weights whose folder no option of this command named."""


def parts_in(path: Path) -> dict[str, list[Path]]:
    """The parts of a model whose weights a path holds: a folder in diffusers' layout (transformer/,
    vae/, text_encoder/), a folder of the denoiser's .safetensors files, or one such file.

    Raises ValueError where it holds none."""
    if path.suffix in PICKLES:
        raise ValueError(f"weights {path}: a pickle may run code and is not read")
    if not path.exists():
        raise ValueError(f"weights {path}: no such folder")
    if path.is_file():
        return {"denoiser": [path]}
    found = {"denoiser": [path / "transformer", path / "transformer_2"], "vae": [path / "vae"]}
    for i in range(16):
        found[f"text_encoders.{i}"] = [path / f"text_encoder{f'_{i + 1}' if i else ''}"]
    found = {part: [p for p in places if p.is_dir()] for part, places in found.items()}
    found = {part: places for part, places in found.items() if places}
    if not {"denoiser", "vae"} & found.keys():
        tensors_in(path)  # the denoiser's own files; or says what lies there instead
        return {"denoiser": [path]}
    return found


def digest(places: Iterable[Path]) -> str:
    """SHA-256 of the .safetensors files of a part.  Raises ValueError for what cannot be read."""
    hashed = hashlib.sha256()
    for place in places:
        for file in dict.fromkeys(tensors_in(place).values()):
            hashed.update(file.name.encode())
            with file.open("rb") as opened:
                while chunk := opened.read(CHUNK):
                    hashed.update(chunk)
    return hashed.hexdigest()


def note_place(weights: str, places: list[Path]) -> None:
    """Where the weights of a digest lie."""
    _places[weights] = str(places[0].resolve())


def place_of(weights: str) -> Path:
    """Raises WeightsNotNamed where this command does not know."""
    known = json.loads(os.environ.get(INHERITED) or "{}") | _places
    if weights not in known:
        raise WeightsNotNamed(f"real weights {weights[:12]}: name their folder with --weights")
    return Path(known[weights])


def handed_on() -> dict[str, str]:
    """What tells a child process of the places, among its environment variables."""
    known = json.loads(os.environ.get(INHERITED) or "{}") | _places
    return {INHERITED: json.dumps(known)} if known else {}
