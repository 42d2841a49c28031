"""What is given beside the prompt: a first image, a clip to go on from, the same clip at both ends.

Shapes: B batch, C channels, T H W latents.
"""

import torch
from torch import Tensor

from models.vae.spec import VAEShape

BEGINS = ("image-to-video", "extend", "loop")
ENDS = ("extend-backward", "loop")


def given_latents(
    encoded: Tensor, task: str, latent_frames: int, vae: VAEShape
) -> dict[str, Tensor]:
    """Place an encoded clip in the video that is to be made -> `given` (B, C, T, H, W) and `mask`
    (B, 1, T, H, W).

    encoded (B, C, k, H, W), of the given frames.  A VAE that takes the first frame alone gives it a
    latent frame of another kind than the rest, so at the end of a video that one is left out.

    Raises ValueError for a task that gives no frames, or frames that do not fit."""
    if task not in BEGINS and task not in ENDS:
        raise ValueError(
            f"task {task} places no frames; those that do:"
            f" {', '.join(dict.fromkeys((*BEGINS, *ENDS)))}"
        )
    batch, channels, _, height, width = encoded.shape
    given = encoded.new_zeros(batch, channels, latent_frames, height, width)
    mask = encoded.new_zeros(batch, 1, latent_frames, height, width)
    end = encoded[:, :, 1:] if vae.first_frame_alone else encoded
    taken = (encoded.shape[2] if task in BEGINS else 0) + (end.shape[2] if task in ENDS else 0)
    if not 0 < taken < latent_frames:
        raise ValueError(
            f"{encoded.shape[2]} latent frames are given to {task} of {latent_frames}: at least one"
            " must be placed and one left to make"
        )
    if task in BEGINS:
        given[:, :, : encoded.shape[2]], mask[:, :, : encoded.shape[2]] = encoded, 1.0
    if task in ENDS and end.shape[2]:
        given[:, :, -end.shape[2] :], mask[:, :, -end.shape[2] :] = end, 1.0
    return {"given": given, "mask": mask}


def noised(latents: Tensor, noise: Tensor, strength: float) -> Tensor:
    """Where video-to-video starts: latents at time `strength` of the linear path (SDEdit, arXiv
    2108.01073).

    Raises ValueError for a strength outside of (0, 1]."""
    if not 0 < strength <= 1:
        raise ValueError(f"strength {strength}: it must be over 0 and at most 1")
    return torch.lerp(latents, noise, strength)
