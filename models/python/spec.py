"""Models of a user's own Python classes: frozen, validated, torch-free.  Nothing is imported here:
`models.python.imports` says what may be."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from models.bounds import (
    Few,
    Flag,
    Size,
    Triple,
    check_arguments,
    check_bounds,
    divide_into_patches,
)
from models.vae.spec import VAEShape

DOTTED = r"[^\W\d]\w*(\.[^\W\d]\w*)*"
REFERENCE = re.compile(f"{DOTTED}(:{DOTTED})?")
"""package.module:Name, as Python's entry points write it, or package.module."""


@dataclass(frozen=True, kw_only=True)
class PythonPart:
    """A part of a model that is built by a user's class."""

    __pydantic_config__: ClassVar[dict] = {"extra": "forbid"}

    python: str
    """package.module:Class, beside the YAML or in the environment."""
    config: dict[str, Any] = field(default_factory=dict)
    """Arguments of the class."""
    adapter: str | None = None
    """package.module, or package.module:name in it, of the functions that call the class, where its
    own do not fit."""
    code: str = ""
    """Sixteen hex digits of the files that hold it, and of those beside them that they import; the
    loader fills it in."""

    @property
    def references(self) -> tuple[str, ...]:
        """Of the class and its adapter."""
        return (self.python,) if self.adapter is None else (self.python, self.adapter)

    def check_references(self) -> None:
        """Raises ValueError for what is no package.module:Name."""
        check_bounds(self)
        check_arguments("config", self.config)
        for name in ("python", "adapter"):
            value = getattr(self, name)
            if value is not None and (len(value) > 200 or not REFERENCE.fullmatch(value)):
                raise ValueError(f"{name} {value[:60]!r}: expected package.module:Name")
        if ":" not in self.python:
            raise ValueError(f"python {self.python!r}: which class? Write {self.python}:Name")


@dataclass(frozen=True, kw_only=True)
class PythonDenoiser(PythonPart):
    """A denoiser: forward(x, t, **inputs) -> the prediction, of x's shape."""

    in_channels: Size
    """Latent channels that are denoised."""
    patch_size: Triple
    """(time, height, width) in latent cells, for the token count."""
    blocks: str = "blocks"
    """How the names of its lists of repeated blocks end; `compile: regional` compiles these."""
    num_heads: Few | None = None
    """Attention heads of a block; forecasts of several cards need it."""
    width: Size | None = None
    """Columns of a block's queries; the same do."""
    published: str = "own class"
    """The label its authors print, e.g. "1.3 B"."""

    def __post_init__(self) -> None:
        self.check_references()

    def tokens(self, latent_shape: tuple[int, int, int]) -> int:
        """Visual tokens of one sample.  Raises ValueError for latents it cannot take."""
        t, h, w = divide_into_patches(latent_shape, self.patch_size)
        return t * h * w


@dataclass(frozen=True, kw_only=True)
class PythonVAE(PythonPart, VAEShape):
    """A VAE: encode(video) -> (mean, log-variance); decode(latents) -> video."""

    latent_channels: Size
    spatial_factor: Few
    temporal_factor: Few
    first_frame_alone: Flag

    def __post_init__(self) -> None:
        self.check_references()


@dataclass(frozen=True, kw_only=True)
class PythonTextEncoder(PythonPart):
    """A text encoder: forward(embeddings (B, tokens, width)) -> any tensor."""

    tokens: Size
    """Prompt length it is padded to."""
    width: Size

    def __post_init__(self) -> None:
        self.check_references()


PYTHON = (PythonDenoiser, PythonVAE, PythonTextEncoder)


def python_parts(model: Any) -> Iterator[PythonPart]:
    """The parts of a bench.core.specs.model.Model that users' classes build."""
    for part in (model.denoiser, model.vae, *model.text_encoders):
        if isinstance(part, PYTHON):
            yield part
