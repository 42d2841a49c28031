"""How each diffusers class of a denoiser is called: one entry of ADAPTERS a class.

Shapes: B batch, C latent channels, T H W latent frames/rows/columns, N tokens, L text tokens,
D_text.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from models.public import meta as zoo_meta
from models.public.positions import allegro_rope, cogvideox_rope, ltx2_audio
from models.public.spec import DiffusersDenoiser

Tensors = dict[str, Any]
Randn = Callable[..., Tensor]


def _nothing(spec: DiffusersDenoiser, model: nn.Module, x: Tensor) -> Tensors:
    return {}


@dataclass(frozen=True)
class Adapter:
    """How one diffusers class is called."""

    condition: Callable[[DiffusersDenoiser, Any, int, Randn], dict[str, Tensor]]
    """(spec, model's config, batch, randn) -> the tensors it takes beside latents and time."""
    call: Callable[[DiffusersDenoiser, nn.Module, Tensor, Tensor, Tensors], Tensor]
    """(spec, model, latents (B, C, T, H, W), timestep (B,), condition) -> (B, >= C, T, H, W)."""
    prepare: Callable[[DiffusersDenoiser, nn.Module, Tensor], Tensors] = _nothing
    """(spec, model, latents) -> what depends on their shape alone; its pipeline makes it once,
    before the loop."""
    time_scale: float = 1000.0
    """t in [0, 1] times this is the timestep."""


def _text(
    spec: DiffusersDenoiser,
    config: Any,
    batch: int,
    randn: Randn,
    *,
    width: str,
    mask: str | None = None,
) -> Tensors:
    """Text embeddings as wide as the config's entry `width` says; with `mask`, one that keeps every
    token.

    A real prompt is shorter and padded; all tokens are counted, which is what dense attention
    runs."""
    condition = {"encoder_hidden_states": randn(batch, spec.text_tokens, config[width])}
    if mask is not None:
        condition[mask] = torch.ones(
            batch, spec.text_tokens, device=randn(1).device, dtype=torch.bool
        )
    return condition


def _direct(
    spec: DiffusersDenoiser, model: nn.Module, x: Tensor, timestep: Tensor, condition: Tensors
) -> Tensor:
    return model(hidden_states=x, timestep=timestep, return_dict=False, **condition)[0]


# --- DiT ---


def _dit_condition(spec: DiffusersDenoiser, config: Any, batch: int, randn: Randn) -> Tensors:
    return {
        "class_labels": torch.full(
            (batch,), config["num_embeds_ada_norm"] // 2, device=randn(1).device
        )
    }


def _dit(
    spec: DiffusersDenoiser, model: nn.Module, x: Tensor, timestep: Tensor, condition: Tensors
) -> Tensor:
    return _direct(spec, model, x.squeeze(2), timestep, condition).unsqueeze(
        2
    )  # an image model: T is 1


# --- Wan ---


def _wan(
    spec: DiffusersDenoiser, model: nn.Module, x: Tensor, timestep: Tensor, condition: Tensors
) -> Tensor:
    if spec.timestep_per_token:
        timestep = timestep[:, None].expand(-1, spec.tokens(tuple(x.shape[2:])))  # (B, N)
    return _direct(spec, model, x, timestep, condition)


# --- CogVideoX ---


def _cogvideox(
    spec: DiffusersDenoiser, model: nn.Module, x: Tensor, timestep: Tensor, condition: Tensors
) -> Tensor:
    frames = x.shape[2]
    if spec.pad_frames:  # the pipeline draws whole patches of noise and drops the surplus
        x = F.pad(x, (0, 0, 0, 0, -frames % spec.patch_size[0], 0))
    out = _direct(spec, model, rearrange(x, "b c t h w -> b t c h w"), timestep, condition)
    return rearrange(out, "b t c h w -> b c t h w")[:, :, -frames:]


# --- HunyuanVideo ---


def _hunyuan_condition(spec: DiffusersDenoiser, config: Any, batch: int, randn: Randn) -> Tensors:
    pooled = randn(batch, config["pooled_projection_dim"])
    # HunyuanVideoPipeline's guidance of 6.0 is an input, times 1,000, since it was distilled in
    guidance = (
        {"guidance": torch.full_like(pooled[:, 0], 6000.0)} if config["guidance_embeds"] else {}
    )
    return {
        "pooled_projections": pooled,
        **guidance,
        **_text(spec, config, batch, randn, width="text_embed_dim", mask="encoder_attention_mask"),
    }


GLYPH_TOKENS, IMAGE_TOKENS = 256, 729  # of ByT5 and SigLIP, HunyuanVideo15Pipeline's constants


def _hunyuan15_condition(spec: DiffusersDenoiser, config: Any, batch: int, randn: Randn) -> Tensors:
    device = randn(1).device
    return {
        **_text(spec, config, batch, randn, width="text_embed_dim", mask="encoder_attention_mask"),
        "encoder_hidden_states_2": randn(batch, GLYPH_TOKENS, config["text_embed_2_dim"]),
        "encoder_attention_mask_2": torch.ones(
            batch, GLYPH_TOKENS, device=device, dtype=torch.bool
        ),
        # zeros are how the class is told that there is no image
        "image_embeds": torch.zeros_like(randn(batch, IMAGE_TOKENS, config["image_embed_dim"])),
    }


def _hunyuan15(
    spec: DiffusersDenoiser, model: nn.Module, x: Tensor, timestep: Tensor, condition: Tensors
) -> Tensor:
    no_image = x.new_zeros(
        x.shape[0], model.config["in_channels"] - x.shape[1], *x.shape[2:]
    )  # its latents and mask
    with zoo_meta.known_masks(x):
        return _direct(
            spec, model, torch.cat([x, no_image], dim=1), timestep.to(x.dtype), condition
        )


# --- LTX ---

LTX_FPS = 25  # LTXPipeline's default frame rate


def _pack(x: Tensor) -> Tensor:
    return rearrange(x, "b c t h w -> b (t h w) c")


def _unpack(tokens: Tensor, like: Tensor) -> Tensor:
    t, h, w = like.shape[2:]
    return rearrange(tokens, "b (t h w) c -> b c t h w", t=t, h=h, w=w)


def _ltx(
    spec: DiffusersDenoiser, model: nn.Module, x: Tensor, timestep: Tensor, condition: Tensors
) -> Tensor:
    t, h, w = x.shape[2:]
    return _unpack(
        _direct(
            spec,
            model,
            _pack(x),
            timestep,
            {
                **condition,
                "num_frames": t,
                "height": h,
                "width": w,
                "rope_interpolation_scale": (8 / LTX_FPS, 32, 32),
            },
        ),
        x,
    )


def _ltx2_condition(spec: DiffusersDenoiser, config: Any, batch: int, randn: Randn) -> Tensors:
    text = _text(
        spec, config, batch, randn, width="caption_channels", mask="encoder_attention_mask"
    )
    return {
        **text,
        "audio_encoder_hidden_states": randn(batch, spec.text_tokens, config["caption_channels"]),
        "audio_encoder_attention_mask": text["encoder_attention_mask"],
    }


def _ltx2(
    spec: DiffusersDenoiser, model: nn.Module, x: Tensor, timestep: Tensor, condition: Tensors
) -> Tensor:
    return _unpack(
        _direct(spec, model, _pack(x), timestep, condition), x
    )  # the audio's prediction is left unused


# --- Mochi ---


def _mochi(
    spec: DiffusersDenoiser, model: nn.Module, x: Tensor, timestep: Tensor, condition: Tensors
) -> Tensor:
    with zoo_meta.mochi(x):  # its time runs from noise to data, and so does its velocity
        return -_direct(spec, model, x, (1000 - timestep).to(x.dtype), condition)


# --- Cosmos ---

COSMOS_FPS = 16  # Cosmos2VideoToWorldPipeline's default


def _cosmos(
    spec: DiffusersDenoiser, model: nn.Module, x: Tensor, timestep: Tensor, condition: Tensors
) -> Tensor:
    """With concat_padding_mask the class resizes a mask by torchvision; here the config has a
    channel more instead, and the mask of an unpadded clip (zeros) is appended: the same weights and
    numbers."""
    b, _, t, h, w = x.shape
    no_image, no_padding = x.new_zeros(b, 1, t, h, w), x.new_zeros(b, 1, t, h, w)
    per_frame = timestep.to(x.dtype).view(b, 1, 1, 1, 1).expand(-1, -1, t, -1, -1)
    return _direct(
        spec,
        model,
        torch.cat([x, no_image, no_padding], dim=1),
        per_frame,
        {**condition, "fps": COSMOS_FPS},
    )


ADAPTERS = {
    "DiTTransformer2DModel": Adapter(_dit_condition, _dit),
    "LatteTransformer3DModel": Adapter(partial(_text, width="caption_channels"), _direct),
    "CogVideoXTransformer3DModel": Adapter(
        partial(_text, width="text_embed_dim"), _cogvideox, cogvideox_rope
    ),
    "HunyuanVideoTransformer3DModel": Adapter(_hunyuan_condition, _direct),
    "HunyuanVideo15Transformer3DModel": Adapter(_hunyuan15_condition, _hunyuan15),
    "WanTransformer3DModel": Adapter(partial(_text, width="text_dim"), _wan),
    "SkyReelsV2Transformer3DModel": Adapter(partial(_text, width="text_dim"), _direct),
    "LTXVideoTransformer3DModel": Adapter(
        partial(_text, width="caption_channels", mask="encoder_attention_mask"), _ltx
    ),
    "LTX2VideoTransformer3DModel": Adapter(_ltx2_condition, _ltx2, ltx2_audio),
    "MochiTransformer3DModel": Adapter(
        partial(_text, width="text_embed_dim", mask="encoder_attention_mask"), _mochi
    ),
    "AllegroTransformer3DModel": Adapter(
        partial(_text, width="caption_channels", mask="encoder_attention_mask"),
        _direct,
        allegro_rope,
    ),
    # its pipeline hands over sigma / (sigma + 1), the time itself
    "CosmosTransformer3DModel": Adapter(
        partial(_text, width="text_embed_dim"), _cosmos, time_scale=1.0
    ),
    "SanaVideoTransformer3DModel": Adapter(
        partial(_text, width="caption_channels", mask="encoder_attention_mask"), _direct
    ),
}
