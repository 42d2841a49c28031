"""How a clip is cut into parts to be decoded: chunks of latent frames, tiles of latent cells.  No
torch: the closed form counts by it too."""

from dataclasses import dataclass
from math import ceil
from typing import ClassVar

from models.bounds import Few, FewOrNone, check_bounds
from models.vae.spec import VAEConfig


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """Tiles in latent cells."""

    __pydantic_config__: ClassVar[dict] = {"extra": "forbid"}

    size: Few
    """Side of a tile."""
    overlap: FewOrNone
    """Cells that neighbouring tiles share."""

    def __post_init__(self) -> None:
        check_bounds(self)
        if not 0 <= self.overlap < self.size:
            raise ValueError(
                f"tile overlap {self.overlap}: it must be at least 0 and less than the size"
                f" {self.size}"
            )

    def spans(self, n: int) -> list[slice]:
        """Spans of an axis of n cells, each `size` long (the last moved back to fit), overlapping
        by at least `overlap`."""
        if n <= self.size:
            return [slice(0, n)]
        starts = [*range(0, n - self.size, self.size - self.overlap), n - self.size]
        return [slice(s, s + self.size) for s in starts]

    def tiles(self, rows: int, columns: int) -> list[tuple[slice, slice]]:
        """All tiles of a plane of latents."""
        return [(r, c) for r in self.spans(rows) for c in self.spans(columns)]


@dataclass(frozen=True)
class Part:
    """Latent frames start to stop are wanted; first to last are decoded, the halo of a symmetric
    VAE included."""

    start: int
    stop: int
    first: int
    last: int


def parts(config: VAEConfig, frames: int, chunk: int) -> list[Part]:
    """`frames` latent frames in chunks.  Raises ValueError for a chunk under 1."""
    if chunk < 1:
        raise ValueError(f"chunk {chunk}: at least 1 latent frame")
    halo = 0 if config.causal else ceil(sight(config)[0])
    return [
        Part(
            start,
            min(start + chunk, frames),
            max(start - halo, 0),
            min(start + chunk + halo, frames),
        )
        for start in range(0, frames, chunk)
    ]


def sight(config: VAEConfig) -> tuple[float, float]:
    """How far the decoder sees, in latent frames (to each side, were it symmetric) and latent
    cells."""
    time, space, t_scale, s_scale = 0.0, 0.0, 1, 1
    reach = config.temporal_kernel // 2
    convs = 3  # into the decoder, and one residual block
    for level in range(len(config.channels)):
        convs += 2 * (config.res_blocks + 1)
        last = level == len(config.channels) - 1
        time += (convs + last) * reach / t_scale  # the head is one more
        space += (convs + last) / s_scale
        if not last:
            t_scale *= 2 if config.time_halvings[::-1][level] else 1
            s_scale *= 2
            convs = 1  # after the upsampling
    return time, space


def pixel_frames(config: VAEConfig, latent_frames: int) -> int:
    """Frames that the first so many latent frames hold."""
    f = config.temporal_factor
    return (
        latent_frames * f
        if not config.first_frame_alone or latent_frames == 0
        else (latent_frames - 1) * f + 1
    )


def few_parts(config: VAEConfig, frames: int, chunk: int) -> int:
    """Latent frames of the shortest clip that has one more inner part like all the others of a clip
    of `frames`, so that what a part costs can be told from it; `frames` itself where that is no
    longer."""
    halo = 0 if config.causal else ceil(sight(config)[0])
    return min(frames, (2 * ceil(halo / chunk) + 4) * chunk + frames % chunk)
