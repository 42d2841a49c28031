"""What public denoisers take that depends on the shape of the latents alone: rotary angles, and
LTX-2's audio.  A pipeline makes it once, before its loop.

Shapes: B batch, C latent channels, T H W latent frames/rows/columns, N tokens.
"""

from typing import Any

import torch
from diffusers.models.embeddings import get_3d_rotary_pos_embed, get_3d_rotary_pos_embed_allegro
from einops import rearrange
from torch import Tensor, nn

from models import draw
from models.public.spec import DiffusersDenoiser

LTX2_FPS = 24.0  # LTX2Pipeline's default frame rate


def cogvideox_rope(spec: DiffusersDenoiser, model: nn.Module, x: Tensor) -> dict[str, Any]:
    """Rotary angles as CogVideoXPipeline makes them: 1.0 rescales the grid to the trained one, 1.5
    does not."""
    config = model.config
    if not config["use_rotary_positional_embeddings"]:
        return {}
    t, h, w = x.shape[2], x.shape[3] // config["patch_size"], x.shape[4] // config["patch_size"]
    base = (
        config["sample_height"] // config["patch_size"],
        config["sample_width"] // config["patch_size"],
    )
    if config["patch_size_t"] is None:
        grid = {"crops_coords": _fit(h, w, *base), "temporal_size": t}
    else:
        grid = {
            "crops_coords": None,
            "temporal_size": -(-t // config["patch_size_t"]),
            "grid_type": "slice",
            "max_size": base,
        }
    return {
        "image_rotary_emb": get_3d_rotary_pos_embed(
            embed_dim=config["attention_head_dim"], grid_size=(h, w), device=x.device, **grid
        )
    }


def _fit(h: int, w: int, base_h: int, base_w: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """(top, left), (bottom, right) of an h x w grid scaled into the middle of base_h x base_w."""
    scale = min(base_h / h, base_w / w)
    rows, columns = round(scale * h), round(scale * w)
    top, left = round((base_h - rows) / 2), round((base_w - columns) / 2)
    return (top, left), (top + rows, left + columns)


def ltx2_audio(spec: DiffusersDenoiser, model: nn.Module, x: Tensor) -> dict[str, Any]:
    """Audio latents as long as the clip at 24 fps, denoised beside the video, and the coordinates
    of both."""
    config, (t, h, w) = model.config, x.shape[2:]
    factor = config["vae_scale_factors"][0]
    seconds = (factor * (t - 1) + 1) / LTX2_FPS
    latents_per_s = (
        config["audio_sampling_rate"] / config["audio_hop_length"] / config["audio_scale_factor"]
    )
    n = round(seconds * latents_per_s)
    g = None if x.is_meta else torch.Generator(x.device).manual_seed(0)
    return {
        "audio_hidden_states": draw.normal(
            x.shape[0], n, config["audio_in_channels"], generator=g, device=x.device, dtype=x.dtype
        ),
        "audio_num_frames": n,
        "num_frames": t,
        "height": h,
        "width": w,
        "fps": LTX2_FPS,
        "video_coords": model.rope.prepare_video_coords(
            x.shape[0], t, h, w, x.device, fps=LTX2_FPS
        ),
        "audio_coords": model.audio_rope.prepare_audio_coords(x.shape[0], n, x.device),
    }


def allegro_rope(spec: DiffusersDenoiser, model: nn.Module, x: Tensor) -> dict[str, Any]:
    """Rotary angles and each token's place in them, as AllegroPipeline makes them."""
    config = model.config
    h, w = x.shape[3] // config["patch_size"], x.shape[4] // config["patch_size"]
    *angles, grid_t, grid_h, grid_w = get_3d_rotary_pos_embed_allegro(
        embed_dim=config["attention_head_dim"],
        crops_coords=((0, 0), (h, w)),
        grid_size=(h, w),
        temporal_size=x.shape[2],
        interpolation_scale=tuple(config[f"interpolation_scale_{axis}"] for axis in "thw"),
        device=x.device,
    )
    places = torch.cartesian_prod(grid_t.long(), grid_h.long(), grid_w.long())  # (N, 3)
    return {
        "image_rotary_emb": (tuple(angles), tuple(rearrange(places, "n a -> a 1 n").contiguous()))
    }
