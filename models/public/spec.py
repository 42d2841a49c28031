"""Public models by the class of diffusers that builds them: frozen, validated, torch-free."""

from dataclasses import dataclass
from typing import Any, ClassVar

from models.bounds import (
    Few,
    Flag,
    Size,
    SizeOrNone,
    Triple,
    check_arguments,
    check_bounds,
    divide_into_patches,
)
from models.vae.spec import VAEShape


@dataclass(frozen=True, kw_only=True)
class DiffusersDenoiser:
    """A public denoiser, built by its diffusers class from a config, with random weights."""

    __pydantic_config__: ClassVar[dict] = {"extra": "forbid"}

    diffusers: str
    """Name of the class in diffusers."""
    config: dict[str, Any]
    """Its constructor's arguments; what is left out is the class's default."""
    in_channels: Size
    """Latent channels that are denoised."""
    patch_size: Triple
    """(time, height, width) in latent cells, for the token count."""
    text_tokens: SizeOrNone
    """Prompt length its pipeline pads to, 0 for none."""
    experts: Few
    """Denoisers held, of which one runs a step (2 for Wan 2.2 A14B), else 1."""
    published: str
    """The label its authors print, e.g. "1.3 B"."""

    # Peculiarities of single models; a preset names those it has.
    boundary: float | None = None
    """With two experts: the first runs at times t >= boundary (t = 1 is noise), the second
    below."""
    timestep_per_token: bool = False
    """One timestep a token instead of one a sample, as Wan 2.2's 5 B model takes (it can hold an
    image's tokens still)."""
    pad_frames: bool = False
    """Latent frames are rounded up to whole patches, as CogVideoX 1.5 does; else they must
    divide."""
    latent_frames: tuple[int, ...] | None = None
    """The frame counts it was built for, where its positions fit no other."""
    square: bool = False
    """It takes square latents only."""

    def __post_init__(self) -> None:
        check_bounds(self)
        check_arguments("config", self.config)
        if self.experts > 2:
            raise ValueError(f"experts is {self.experts}: 1, or 2 with a boundary between them")
        if (self.boundary is not None) != (self.experts == 2):
            raise ValueError(
                f"experts {self.experts}, boundary {self.boundary}: two experts need a boundary,"
                " one has none"
            )
        if self.boundary is not None and not 0 < self.boundary < 1:
            raise ValueError(
                f"boundary {self.boundary}: it must lie between 0 (data) and 1 (noise)"
            )

    def tokens(self, latent_shape: tuple[int, int, int]) -> int:
        """Visual tokens of one sample.  Raises ValueError for latents it cannot take."""
        t, h, w = latent_shape
        if self.latent_frames is not None and t not in self.latent_frames:
            raise ValueError(
                f"{t} latent frames: this model takes {' or '.join(map(str, self.latent_frames))}"
            )
        if self.square and h != w:
            raise ValueError(f"{h} x {w} latents: this model takes square ones only")
        if self.pad_frames:
            t += -t % self.patch_size[0]
        t, h, w = divide_into_patches((t, h, w), self.patch_size)
        return t * h * w


@dataclass(frozen=True, kw_only=True)
class DiffusersVAE(VAEShape):
    """A public VAE, built by its diffusers class from a config, with random weights."""

    __pydantic_config__: ClassVar[dict] = {"extra": "forbid"}

    diffusers: str
    """Name of the class in diffusers."""
    config: dict[str, Any]
    latent_channels: Size
    spatial_factor: Few
    temporal_factor: Few
    first_frame_alone: Flag
    tile: tuple[int, int, int] | None = None
    """(frames, height, width) of a tile in pixels, for a VAE that runs in tiles only (Allegro)."""
    tile_stride: tuple[int, int, int] | None = None
    """From tile to tile.  What lies past the last whole tile would silently stay zero, so other
    sizes are refused."""

    def __post_init__(self) -> None:
        check_bounds(self)
        check_arguments("config", self.config)
        if (self.tile is None) != (self.tile_stride is None):
            raise ValueError(
                f"tile {self.tile}, tile_stride {self.tile_stride}: give both or neither"
            )

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """(T, H, W) latents of a clip in pixels.  Raises ValueError for sizes it cannot take."""
        if self.tile is not None and self.tile_stride is not None:
            sizes = (("frames", frames), ("height", height), ("width", width))
            for (axis, size), tile, step in zip(sizes, self.tile, self.tile_stride, strict=True):
                if size < tile or (size - tile) % step:
                    low = tile + max(size - tile, 0) // step * step
                    raise ValueError(
                        f"{axis} {size}: this VAE's tiles cover {tile} + {step} k; "
                        f"nearest: {low} or {low + step}"
                    )
        return super().latent_shape(frames, height, width)
