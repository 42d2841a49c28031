"""A model: its denoiser, VAE and text encoder, and the stages that can be timed."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from bench.core.specs.base import Spec
from bench.core.specs.workload import Workload
from models.ar.spec import AutoregressiveConfig
from models.bounds import nearest_multiples
from models.spec import (
    DiffusersDenoiser,
    DiffusersVAE,
    DiTConfig,
    PythonDenoiser,
    PythonPart,
    PythonTextEncoder,
    PythonVAE,
    TextEncoderConfig,
    VAEConfig,
)

Stage = Literal[
    "denoise_step",
    "trajectory",
    "train_step",
    "prefill",
    "decode_token",
    "vae_decode",
    "vae_encode",
    "condition_encode",
    "text_encode",
]
PartName = Annotated[str, Field(pattern=r"^(denoiser|vae|text_encoders\.\d{1,2})$")]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
DIFFUSION_STAGES = ("denoise_step", "trajectory", "train_step")
TOKEN_STAGES = ("prefill", "decode_token")
"""Of an auto-regressive model: the prompt and given tokens at once; one token over a cache of the
mean length."""


KINDS: tuple[tuple[str, str, tuple[type, ...]], ...] = (
    ("code_bits", "autoregressive", (AutoregressiveConfig,)),
    ("python", "python", (PythonPart,)),
    ("diffusers", "diffusers", (DiffusersDenoiser, DiffusersVAE)),
)
"""The field that only a part of this kind has, its tag, its classes."""


def kind_of(part: object) -> str:
    """own, diffusers, python or autoregressive: of a part, or of its fields."""
    for field, tag, classes in KINDS:
        if isinstance(part, classes) or (isinstance(part, Mapping) and field in part):
            return tag
    return "own"


def class_of(part: object) -> str:
    """In words: the class of a public or a user's part."""
    if isinstance(part, (DiffusersDenoiser, DiffusersVAE)):
        return f"diffusers' {part.diffusers}"
    return part.python if isinstance(part, PythonPart) else "of this package"


class Model(Spec):
    """A denoiser, or an auto-regressive model in its place, with its VAE (there: its tokenizer) and
    text encoder."""

    source: str
    """Where the shape was published."""
    denoiser: Annotated[
        Annotated[DiTConfig, Tag("own")]
        | Annotated[DiffusersDenoiser, Tag("diffusers")]
        | Annotated[PythonDenoiser, Tag("python")]
        | Annotated[AutoregressiveConfig, Tag("autoregressive")],
        Discriminator(kind_of),
    ]
    vae: Annotated[
        Annotated[VAEConfig, Tag("own")]
        | Annotated[DiffusersVAE, Tag("diffusers")]
        | Annotated[PythonVAE, Tag("python")],
        Discriminator(kind_of),
    ]
    text_encoders: Annotated[
        tuple[
            Annotated[
                Annotated[TextEncoderConfig, Tag("own")]
                | Annotated[PythonTextEncoder, Tag("python")],
                Discriminator(kind_of),
            ],
            ...,
        ],
        Field(max_length=16),
    ]
    """In the order they run; own DiTs take the first one's width, pooled."""
    weights: dict[PartName, Digest] | None = None
    """SHA-256 of the real weights of each part that has them, by part: denoiser, vae,
    text_encoders.0; --weights sets it.  Parts that are not named, or all, have random ones."""

    @model_validator(mode="after")
    def _parts_fit(self) -> "Model":
        if self.denoiser.in_channels != self.vae.latent_channels:
            raise ValueError(
                f"denoiser.in_channels {self.denoiser.in_channels} is not "
                f"vae.latent_channels {self.vae.latent_channels}"
            )
        if isinstance(self.denoiser, (DiTConfig, AutoregressiveConfig)):
            encoded = self.text_encoders[0].width if self.text_encoders else 0
            if self.denoiser.text_width != encoded and not self.text_encoders:
                raise ValueError(
                    f"denoiser.text_width {self.denoiser.text_width} with no text_encoders: at"
                    " least one of that width is needed"
                )
            if self.denoiser.text_width != encoded:
                raise ValueError(
                    f"denoiser.text_width {self.denoiser.text_width} is not text_encoders.0.width"
                    f" {encoded}"
                )
            if (
                self.denoiser.text_tokens
                and self.denoiser.text_tokens != self.text_encoders[0].tokens
            ):
                raise ValueError(
                    f"denoiser.text_tokens {self.denoiser.text_tokens} is not "
                    f"text_encoders.0.tokens {self.text_encoders[0].tokens}"
                )
        return self

    @property
    def autoregressive(self) -> bool:
        """Is it made token by token?"""
        return isinstance(self.denoiser, AutoregressiveConfig)

    def latent_shape(self, workload: Workload) -> tuple[int, int, int]:
        """(T, H, W) of the latents.  Raises ValueError for a workload this VAE cannot take."""
        return self.vae.latent_shape(workload.frames, workload.height, workload.width)

    def tokens(self, workload: Workload) -> int:
        """Tokens of one sample.  Raises ValueError for a workload this model cannot take."""
        shape = self.latent_shape(workload)
        try:
            return self.denoiser.tokens(shape)
        except ValueError as error:
            raise ValueError(f"{error}{self._sides_that_divide(workload, shape)}") from None

    def _sides_that_divide(self, workload: Workload, shape: tuple[int, int, int]) -> str:
        """In pixels, what a side that does not divide into patches could be."""
        patch = getattr(self.denoiser, "patch_size", None)
        if patch is None:
            return ""
        sides = zip(("height", "width"), shape[1:], patch[1:], strict=True)
        for name, latents, step in sides:
            if latents % step:
                pixels = getattr(workload, name)
                base = pixels // latents * step
                return f", so {name} {pixels} could be {nearest_multiples(pixels, base)}"
        return ""


def needs_condition(model: Model, workload: Workload) -> bool:
    """Is a clip encoded before the first step: frames that are given, or a side branch's control
    video?"""
    return workload.encoded_frames > 0 or has_control(model)


def has_control(model: Model) -> bool:
    """Does the denoiser take a control video?"""
    return isinstance(model.denoiser, DiTConfig) and model.denoiser.control_blocks > 0


def with_denoiser(model: Model, fields: dict[str, Any]) -> Model:
    """The model with other fields of its own denoiser.  Raises ValueError for a public one, and for
    what is no field."""
    if not isinstance(model.denoiser, DiTConfig):
        raise ValueError(f"denoiser {fields}: only own denoisers take other fields")
    known = [f.name for f in dataclasses.fields(DiTConfig)]
    for name in fields.keys() - set(known):
        raise ValueError(f"denoiser.{name} is not one of {', '.join(known)}")
    data = model.model_dump(mode="json")
    return Model.model_validate({**data, "denoiser": {**data["denoiser"], **fields}})
