"""Encode and decode a clip in parts, so that memory is set by the part and not by the clip.

Along time: a causal VAE goes on from the frames its convolutions kept, which equals the whole clip
exactly; a symmetric one is given a halo of latent frames on both sides, as wide as it sees, and
loses what the halo made. Across space: tiles overlap, and are blended over the middle half of the
overlap; where a quarter of the overlap is as wide as the decoder sees, that too equals the whole.

Shapes: B batch, C channels, T H W latents, F frames.
"""

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from models.vae.model import State, VideoVAE
from models.vae.tiling import Part, Tiling, parts, pixel_frames


def decode_parts(
    vae: VideoVAE, latents: Tensor, *, chunk: int, tiling: Tiling | None = None
) -> Iterator[Tensor]:
    """Yield the clip's frames part by part.  latents (B, C, T, H, W) -> (B, 3, some F, s H, s W) at
    a time.

    chunk: latent frames a part.  Raises ValueError for a chunk under 1."""
    config, tiles = (
        vae.config,
        [(slice(None), slice(None))] if tiling is None else tiling.tiles(*latents.shape[3:]),
    )
    states: list[State] = [{} for _ in tiles]
    for part in parts(config, latents.shape[2], chunk):
        decoded = [
            decode_part(vae, latents[..., rows, cols], part, states[i])
            for i, (rows, cols) in enumerate(tiles)
        ]
        yield (
            decoded[0]
            if tiling is None
            else blend(decoded, tiles, latents.shape[3:], tiling, config.spatial_factor)
        )


def decode_part(vae: VideoVAE, latents: Tensor, part: Part, state: State) -> Tensor:
    """The frames of one part of a clip or tile.  latents: of the whole clip; state: what a causal
    decoder kept of the parts before."""
    config = vae.config
    skip = pixel_frames(config, part.start) - pixel_frames(config, part.first)
    wanted = pixel_frames(config, part.stop) - pixel_frames(config, part.start)
    if part.first > 0 and config.first_frame_alone and not config.causal:
        # The decoder takes the part's first latent frame for a clip's first: it makes one frame
        # of it, not f.
        skip -= config.temporal_factor - 1
    given = latents[:, :, part.first : part.last]
    decoded = vae.decoder(given, state if config.causal else None)
    return decoded[:, :, skip : skip + wanted]


def decode_in_parts(
    vae: VideoVAE,
    latents: Tensor,
    frames: int | None = None,
    *,
    chunk: int,
    tiling: Tiling | None = None,
) -> Tensor:
    """All parts joined: what vae.decode gives, in the memory of one part and of the finished
    clip."""
    config, at = vae.config, 0
    size = (n * config.spatial_factor for n in latents.shape[3:])
    video = latents.new_empty(
        latents.shape[0], config.in_channels, pixel_frames(config, latents.shape[2]), *size
    )
    for part in decode_parts(vae, latents, chunk=chunk, tiling=tiling):
        video[:, :, at : at + part.shape[2]] = part
        at += part.shape[2]
    return video if frames is None else video[:, :, :frames]


def encode_in_parts(vae: VideoVAE, video: Tensor, *, chunk: int) -> tuple[Tensor, Tensor]:
    """Mean and log-variance as vae.encode gives them, `chunk` latent frames at a time.  Causal VAEs
    alone.

    Raises ValueError for a symmetric VAE: its encoder would need frames of the part to come."""
    config = vae.config
    if not config.causal:
        raise ValueError("a symmetric VAE cannot be encoded in parts")
    config.latent_shape(*video.shape[2:])
    missing = -video.shape[2] % config.temporal_factor
    if missing and not config.first_frame_alone:
        video = torch.cat([video, video[:, :, -1:].expand(-1, -1, missing, -1, -1)], dim=2)
    latent_frames, state, encoded = config.latent_frames(video.shape[2]), {}, []
    cuts = [pixel_frames(config, n) for n in (*range(0, latent_frames, chunk), latent_frames)]
    for start, stop in pairwise(cuts):
        encoded.append(vae.encoder(video[:, :, start:stop], state))
    mean, logvar = torch.cat(encoded, dim=2).chunk(2, dim=1)
    return mean, logvar.clamp(-30.0, 20.0)


def blend(
    parts: list[Tensor],
    tiles: list[tuple[slice, slice]],
    size: tuple[int, int],
    tiling: Tiling,
    scale: int,
) -> Tensor:
    """Weighted mean of overlapping tiles.  parts (B, C, F, s h, s w) -> (B, C, F, s H, s W)."""
    out = parts[0].new_zeros(*parts[0].shape[:3], size[0] * scale, size[1] * scale)
    total = out.new_zeros(out.shape[3:])
    for part, (rows, cols) in zip(parts, tiles, strict=True):
        weight = _ramp(rows, size[0], tiling, scale, out)[:, None] * _ramp(
            cols, size[1], tiling, scale, out
        )
        where = (
            ...,
            slice(rows.start * scale, rows.stop * scale),
            slice(cols.start * scale, cols.stop * scale),
        )
        out[where] += part * weight
        total[where[1:]] += weight
    return out / total


def _ramp(span: slice, n: int, tiling: Tiling, scale: int, like: Tensor) -> Tensor:
    """Weight along one axis: 0 over the outer quarter of an overlap, rising to 1 over its middle
    half.

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
