"""Shape of a 3D VAE: frozen, validated, torch-free."""

from dataclasses import dataclass
from math import ceil, log2
from typing import Annotated, ClassVar, Literal

from models.bounds import Depth, Few, Flag, Size, Within, check_bounds, nearest_multiples


class VAEShape:
    """How a clip in pixels becomes latents: shared by own and public VAEs."""

    temporal_factor: Few
    spatial_factor: Few
    first_frame_alone: Flag

    def latent_frames(self, frames: int) -> int:
        """Latent frames of a clip.  Raises ValueError, naming the nearest legal counts, where it
        cannot be taken."""
        if frames < 1:
            raise ValueError(f"frames is {frames}: it must be at least 1")
        f = self.temporal_factor
        if not self.first_frame_alone:
            return ceil(frames / f)
        if (frames - 1) % f:
            low = (frames - 1) // f * f + 1
            raise ValueError(
                f"{frames} frames: this VAE takes {f} k + 1 frames; nearest: {low} or {low + f}"
            )
        return (frames - 1) // f + 1

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """(T, H, W) latents of a clip in pixels.  Raises ValueError for sizes it cannot take."""
        for axis, size in (("height", height), ("width", width)):
            if size < 1 or size % self.spatial_factor:
                raise ValueError(
                    f"{axis} {size} is not a positive multiple of the VAE's {self.spatial_factor}; "
                    f"nearest: {nearest_multiples(size, self.spatial_factor)}"
                )
        return (
            self.latent_frames(frames),
            height // self.spatial_factor,
            width // self.spatial_factor,
        )


@dataclass(frozen=True, kw_only=True)
class VAEConfig(VAEShape):
    """A 3D convolutional autoencoder.  Spatial factor 2 per level after the first; time on the last
    levels."""

    __pydantic_config__: ClassVar[dict] = {"extra": "forbid"}

    in_channels: Annotated[int, Within(3, 3)]
    """Colour channels: the pixels of every workload are RGB."""
    latent_channels: Size
    channels: tuple[Size, ...]
    """Width of each level, from pixels to latents; levels - 1 halvings of height and width."""
    res_blocks: Depth
    """Residual blocks per encoder level (a decoder level has one more, as in Stable
    Diffusion's)."""
    temporal_factor: Few
    """Frames per latent frame: a power of two, applied on the deepest levels (as in Wan 2.1)."""
    temporal_kernel: Literal[1, 3]
    """Kernel of the convolutions along time: 1 makes an image VAE that treats frames alone."""
    causal: Flag
    """A latent frame sees no later frame than its own last one."""
    first_frame_alone: Flag
    """True: frames = k f + 1, the first frame has a latent of its own (Wan, CogVideoX).
    False: T_latent = ceil(frames / f), the last group filled by repeating its last frame."""

    def __post_init__(self) -> None:
        check_bounds(self)
        if not 1 <= len(self.channels) <= 12:
            raise ValueError(f"channels {list(self.channels)}: at least one level and at most 12")
        legal = [2**i for i in range(len(self.channels))]
        if self.temporal_factor not in legal:
            raise ValueError(
                f"temporal_factor {self.temporal_factor}: with {len(self.channels)} levels it must"
                f" be one of {legal}"
            )
        if self.temporal_factor > 1 and self.temporal_kernel == 1:
            raise ValueError(f"temporal_factor {self.temporal_factor} needs temporal_kernel 3")

    @property
    def spatial_factor(self) -> int:
        return 2 ** (len(self.channels) - 1)

    @property
    def time_halvings(self) -> tuple[bool, ...]:
        """For each of the levels - 1 resamplings, from pixels to latents: does it also halve
        time?"""
        steps, halvings = len(self.channels) - 1, int(log2(self.temporal_factor))
        return tuple(i >= steps - halvings for i in range(steps))
