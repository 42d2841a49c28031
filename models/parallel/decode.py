"""A VAE's decode spread over ranks: tiles where there are any, else the time parts of a symmetric
VAE.  Every rank has the whole clip in the end.

A causal VAE's parts follow from one another, so that they can be spread by tiles alone.

Shapes: B batch, C channels, T H W latents, F frames.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from models.parallel.mesh import Ranks
from models.vae.model import VideoVAE
from models.vae.parts import blend, decode_part
from models.vae.tiling import Tiling, parts, pixel_frames


def cannot_spread(vae: VideoVAE, chunk: int | None, tiling: Tiling | None) -> str | None:
    """Why a decode cannot be shared; None where it can."""
    if chunk is None:
        return "the clip is decoded in one piece; say vae_chunk, and vae_tile for a causal VAE"
    if tiling is None and vae.config.causal:
        return "a causal VAE decodes one part after the other; say vae_tile"
    return None


def decode_on_ranks(
    vae: VideoVAE,
    latents: Tensor,
    frames: int,
    *,
    chunk: int | None,
    tiling: Tiling | None,
    ranks: Ranks,
) -> Tensor:
    """What models.vae.parts.decode_in_parts gives.  latents (B, C, T, H, W) -> (B, 3, frames, s H,
    s W).  Raises ValueError for a clip in one piece, and for a causal VAE without tiles."""
    reason = cannot_spread(vae, chunk, tiling)
    if reason is not None or chunk is None:
        raise ValueError(f"vae {ranks.size}: {reason}")
    if tiling is None:
        video = _by_time(vae, latents, chunk, ranks)
    else:
        video = _by_tiles(vae, latents, chunk, tiling, ranks)
    return video[:, :, :frames]


def _by_tiles(vae: VideoVAE, latents: Tensor, chunk: int, tiling: Tiling, ranks: Ranks) -> Tensor:
    """Tile i is rank i % size's, through all of the clip."""
    config, size = vae.config, latents.shape[3:]
    tiles = tiling.tiles(*size)
    mine = range(ranks.index, len(tiles), ranks.size)
    states: dict[int, dict] = {i: {} for i in mine}
    joined = []
    for part in parts(config, latents.shape[2], chunk):
        decoded = [decode_part(vae, latents[..., *tiles[i]], part, states[i]) for i in mine]
        length = pixel_frames(config, part.stop) - pixel_frames(config, part.start)
        shape = _pixels(vae, latents[..., *tiles[0]], length)
        of_all = _gathered(decoded, len(tiles), shape, latents, ranks)
        joined.append(blend(of_all, tiles, size, tiling, config.spatial_factor))
    return torch.cat(joined, dim=2)


def _by_time(vae: VideoVAE, latents: Tensor, chunk: int, ranks: Ranks) -> Tensor:
    """Part i is rank i % size's."""
    config = vae.config
    cut = parts(config, latents.shape[2], chunk)
    ends = [pixel_frames(config, n) for n in (*(part.start for part in cut), cut[-1].stop)]
    lengths = [stop - start for start, stop in pairwise(ends)]
    longest = max(lengths)
    mine = cut[ranks.index :: ranks.size]
    decoded = [decode_part(vae, latents, part, {}) for part in mine]
    padded = [F.pad(x, (0, 0, 0, 0, 0, longest - x.shape[2])) for x in decoded]
    of_all = _gathered(padded, len(cut), _pixels(vae, latents, longest), latents, ranks)
    return torch.cat([x[:, :, :n] for x, n in zip(of_all, lengths, strict=True)], dim=2)


def _gathered(
    mine: list[Tensor], count: int, shape: tuple[int, ...], like: Tensor, ranks: Ranks
) -> list[Tensor]:
    """All units of all ranks in order.  A rank with fewer than others sends zeros for the rest."""
    slots = -(-count // ranks.size)
    missing = [like.new_zeros(shape)] * (slots - len(mine))
    by_rank = ranks.gather(torch.stack([*mine, *missing]))  # (size, slots, ...)
    return [by_rank[i % ranks.size, i // ranks.size] for i in range(count)]


def _pixels(vae: VideoVAE, latents: Tensor, length: int) -> tuple[int, ...]:
    """Shape of so many decoded frames."""
    batch, _, _, rows, columns = latents.shape
    scale = vae.config.spatial_factor
    return batch, vae.config.in_channels, length, rows * scale, columns * scale
