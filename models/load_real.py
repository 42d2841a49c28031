"""Real weights into a pipeline's parts, in the place of random ones."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from torch import Tensor, nn

from models.dit.model import SpatioTemporalDiT
from models.pipeline import VideoPipeline
from models.public.checkpoints import load_dit_state
from models.public.weights import load_weights
from models.real_weights import place_of
from models.safetensors_files import tensors_in


def load_real(pipeline: VideoPipeline, weights: Mapping[str, str]) -> None:
    """Fill the parts that lie on a device.  weights: digest by part (denoiser, vae,
    text_encoders.0, ...), as models.real_weights gives them.

    Raises ValueError, in one line, for files that cannot be read, and names or shapes that do not
    fit; WeightsNotNamed where the folder is not known."""
    parts = {"denoiser": pipeline.denoiser, "vae": pipeline.vae}
    parts |= {f"text_encoders.{i}": part for i, part in enumerate(pipeline.text_encoders)}
    for name, digest in weights.items():
        if name in parts and not any(p.is_meta for p in parts[name].parameters()):
            _load(parts[name], place_of(digest))


def _load(part: nn.Module, place: Path) -> None:
    if isinstance(part, SpatioTemporalDiT):
        return load_dit_state(part, _tensors(place), f"weights {place}")
    for i, module in enumerate(getattr(part, "experts", [getattr(part, "model", part)])):
        load_weights(module, place if i == 0 else place.with_name(f"{place.name}_{i + 1}"))
    return None


def _tensors(place: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    files = tensors_in(place)
    for file in dict.fromkeys(files.values()):
        with safe_open(file, framework="pt") as tensors:
            state |= {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
    return state
