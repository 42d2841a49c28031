"""Encode and decode a clip in parts, so that memory is set by the part and not by the clip.

Along time: a causal VAE goes on from the frames its convolutions kept, which equals the whole clip exactly; a symmetric
one is given a halo of latent frames on both sides, as wide as it sees, and loses what the halo made.
Across space: tiles overlap, and are blended over the middle half of the overlap; where a quarter of the overlap is as wide
as the decoder sees, that too equals the whole.

Shapes: B batch, C channels, T H W latents, F frames.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import ceil

import torch
from torch import Tensor

from models.spec import VAEConfig
from models.vae import State, VideoVAE


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """Tiles in latent cells."""

    size: int
    """Side of a tile."""
    overlap: int
    """Cells that neighbouring tiles share."""

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < self.size:
            raise ValueError(f"tile overlap {self.overlap}: it must be at least 0 and less than the size {self.size}")


def sight(config: VAEConfig) -> tuple[float, float]:
    """How far the decoder sees, in latent frames (to each side, were it symmetric) and latent cells."""
    time, space, t_scale, s_scale = 0.0, 0.0, 1, 1
    reach = config.temporal_kernel // 2
    convs = 3                                             # into the decoder, and one residual block
    for level in range(len(config.channels)):
        convs += 2 * (config.res_blocks + 1)
        last = level == len(config.channels) - 1
        time += (convs + last) * reach / t_scale          # the head is one more
        space += (convs + last) / s_scale
        if not last:
            t_scale *= 2 if config.time_halvings[::-1][level] else 1
            s_scale *= 2
            convs = 1                                     # after the upsampling
    return time, space


def decode_parts(vae: VideoVAE, latents: Tensor, *, chunk: int, tiling: Tiling | None = None) -> Iterator[Tensor]:
    """Yield the clip's frames part by part.  latents (B, C, T, H, W) -> (B, 3, some F, s H, s W) at a time.

    chunk: latent frames a part.  Raises ValueError for a chunk under 1."""
    if chunk < 1:
        raise ValueError(f"chunk {chunk}: at least 1 latent frame")
    config, frames = vae.config, latents.shape[2]
    tiles = _tiles(latents.shape[3:], tiling)
    states: list[State] = [{} for _ in tiles]
    halo = 0 if config.causal else ceil(sight(config)[0])
    for start in range(0, frames, chunk):
        stop = min(start + chunk, frames)
        first, last = max(start - halo, 0), min(stop + halo, frames)
        part = latents[:, :, first:last]
        skip = _pixel_frames(config, start) - _pixel_frames(config, first)
        wanted = _pixel_frames(config, stop) - _pixel_frames(config, start)
        if first > 0 and config.first_frame_alone and not config.causal:
            # The decoder takes the part's first latent frame for a clip's first: it makes one frame of it, not f.
            skip -= config.temporal_factor - 1
        decoded = [
            vae.decoder(part[..., rows, cols], states[i] if config.causal else None)[:, :, skip:skip + wanted]
            for i, (rows, cols) in enumerate(tiles)
        ]
        yield decoded[0] if tiling is None else _blend(decoded, tiles, latents.shape[3:], tiling, config.spatial_factor)


def decode_in_parts(vae: VideoVAE, latents: Tensor, frames: int | None = None, *, chunk: int,
                    tiling: Tiling | None = None) -> Tensor:
    """All parts joined: what vae.decode gives, in the memory of one part and of the finished clip."""
    video = torch.cat(list(decode_parts(vae, latents, chunk=chunk, tiling=tiling)), dim=2)
    return video if frames is None else video[:, :, :frames]


def encode_in_parts(vae: VideoVAE, video: Tensor, *, chunk: int) -> tuple[Tensor, Tensor]:
    """Mean and log-variance as vae.encode gives them, `chunk` latent frames at a time.  Causal VAEs alone.

    Raises ValueError for a symmetric VAE: its encoder would need frames of the part to come."""
    config = vae.config
    if not config.causal:
        raise ValueError("a symmetric VAE cannot be encoded in parts")
    config.latent_shape(*video.shape[2:])
    missing = -video.shape[2] % config.temporal_factor
    if missing and not config.first_frame_alone:
        video = torch.cat([video, video[:, :, -1:].expand(-1, -1, missing, -1, -1)], dim=2)
    latent_frames, state, parts = config.latent_frames(video.shape[2]), {}, []
    cuts = [_pixel_frames(config, n) for n in (*range(0, latent_frames, chunk), latent_frames)]
    for start, stop in pairwise(cuts):
        parts.append(vae.encoder(video[:, :, start:stop], state))
    mean, logvar = torch.cat(parts, dim=2).chunk(2, dim=1)
    return mean, logvar.clamp(-30.0, 20.0)


def _pixel_frames(config: VAEConfig, latent_frames: int) -> int:
    """Frames that the first so many latent frames hold."""
    f = config.temporal_factor
    return latent_frames * f if not config.first_frame_alone or latent_frames == 0 else (latent_frames - 1) * f + 1


def _tiles(size: tuple[int, int], tiling: Tiling | None) -> list[tuple[slice, slice]]:
    if tiling is None:
        return [(slice(None), slice(None))]
    rows, cols = (_spans(n, tiling) for n in size)
    return [(r, c) for r in rows for c in cols]


def _spans(n: int, tiling: Tiling) -> list[slice]:
    """Spans of one axis, each tiling.size long (the last moved back to fit), overlapping by at least the overlap."""
    if n <= tiling.size:
        return [slice(0, n)]
    starts = [*range(0, n - tiling.size, tiling.size - tiling.overlap), n - tiling.size]
    return [slice(s, s + tiling.size) for s in starts]


def _blend(parts: list[Tensor], tiles: list[tuple[slice, slice]], size: tuple[int, int], tiling: Tiling,
           scale: int) -> Tensor:
    """Weighted mean of overlapping tiles.  parts (B, C, F, s h, s w) -> (B, C, F, s H, s W)."""
    out = parts[0].new_zeros(*parts[0].shape[:3], size[0] * scale, size[1] * scale)
    total = out.new_zeros(out.shape[3:])
    for part, (rows, cols) in zip(parts, tiles, strict=True):
        weight = _ramp(rows, size[0], tiling, scale, out)[:, None] * _ramp(cols, size[1], tiling, scale, out)
        where = (..., slice(rows.start * scale, rows.stop * scale), slice(cols.start * scale, cols.stop * scale))
        out[where] += part * weight
        total[where[1:]] += weight
    return out / total


def _ramp(span: slice, n: int, tiling: Tiling, scale: int, like: Tensor) -> Tensor:
    """Weight along one axis: 0 over the outer quarter of an overlap, rising to 1 over its middle half.

    No ramp at the border of the clip."""
    length, quarter = (span.stop - span.start) * scale, tiling.overlap * scale / 4
    at = torch.arange(length, device=like.device, dtype=torch.float32) + 0.5
    rise = ((at - quarter) / (2 * quarter)).clamp(0, 1) if quarter else torch.ones_like(at)
    weight = torch.ones_like(at)
    if span.start > 0:
        weight = weight * rise
    if span.stop < n:
        weight = weight * rise.flip(0)
    return weight.to(like.dtype)
