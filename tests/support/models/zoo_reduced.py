"""A reduced copy of every public model: two blocks, small width, its own VAE with narrow levels.

What is left out stays as the public one has it, so that each runs through the same code."""

import dataclasses

from bench.core.load import load
from bench.core.specs.model import Model
from bench.core.specs.workload import Workload

T5 = {
    "width": 16,
    "depth": 1,
    "num_heads": 2,
    "head_dim": 8,
    "kv_heads": 2,
    "ffn_width": 32,
    "tokens": 6,
}
WAN = {
    "num_layers": 2,
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "ffn_dim": 32,
    "text_dim": 16,
    "freq_dim": 16,
}
WAN_VAE = {"base_dim": 4, "num_res_blocks": 1}
KL = {
    "block_out_channels": [4, 4, 8, 8],
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "sample_size": 32,
}
COGVIDEOX = {
    "num_layers": 2,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "text_embed_dim": 16,
    "time_embed_dim": 8,
    "sample_width": 8,
    "sample_height": 8,
    "sample_frames": 9,
    "max_text_seq_length": 6,
}
COGVIDEOX_VAE = {"block_out_channels": [8, 8, 8, 8], "layers_per_block": 1, "norm_num_groups": 2}
LTX = {
    "num_layers": 2,
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "cross_attention_dim": 24,
    "caption_channels": 16,
}
COSMOS = {
    "num_layers": 2,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "text_embed_dim": 16,
    "adaln_lora_dim": 4,
    "crossattn_proj_in_channels": 16,
    "encoder_hidden_states_channels": 16,
}
LTX_095 = {
    "block_out_channels": [8, 16, 32, 64, 128],
    "decoder_block_out_channels": [16, 32, 64],
    "layers_per_block": [1, 1, 1, 1, 1],
    "decoder_layers_per_block": [1, 1, 1, 1],
}

CLIP, CLIP8 = (
    (5, 32, 32),
    (9, 64, 64),
)  # frames, height, width; for VAEs of 4x8x8 or 4x16x16, and of 8x32x32
REDUCED = {  # name -> overrides of the denoiser's config, of the VAE's, the clip
    "dit-xl-2-diffusers": (
        {
            "num_layers": 2,
            "num_attention_heads": 2,
            "attention_head_dim": 8,
            "sample_size": 8,
            "num_embeds_ada_norm": 10,
        },
        KL,
        (1, 32, 32),
    ),
    "latte": (
        {
            "num_layers": 2,
            "num_attention_heads": 2,
            "attention_head_dim": 8,
            "cross_attention_dim": 16,
            "caption_channels": 16,
            "sample_size": 8,
        },
        KL,
        (16, 32, 32),
    ),
    "cogvideox-2b": (COGVIDEOX, COGVIDEOX_VAE, CLIP),
    "cogvideox-5b": (COGVIDEOX, COGVIDEOX_VAE, CLIP),
    "cogvideox1.5-5b": (COGVIDEOX, COGVIDEOX_VAE, (9, 32, 32)),  # 3 latent frames in patches of 2
    "hunyuanvideo": (
        {
            "num_layers": 2,
            "num_single_layers": 2,
            "num_refiner_layers": 1,
            "num_attention_heads": 2,
            "attention_head_dim": 12,
            "rope_axes_dim": [4, 4, 4],
            "text_embed_dim": 16,
            "pooled_projection_dim": 8,
        },
        {"block_out_channels": [4, 4, 8, 8], "layers_per_block": 1, "norm_num_groups": 2},
        CLIP,
    ),
    "hunyuanvideo-1.5": (
        {
            "num_layers": 2,
            "num_refiner_layers": 1,
            "num_attention_heads": 2,
            "attention_head_dim": 12,
            "rope_axes_dim": [4, 4, 4],
            "text_embed_dim": 16,
            "text_embed_2_dim": 8,
            "image_embed_dim": 8,
        },
        {"block_out_channels": [8, 16, 32, 64, 64], "layers_per_block": 1},
        CLIP,
    ),
    "wan2.1-t2v-1.3b": (WAN, WAN_VAE, CLIP),
    "wan2.1-t2v-14b": (WAN, WAN_VAE, CLIP),
    "wan2.2-ti2v-5b": (WAN, {**WAN_VAE, "decoder_base_dim": 4}, CLIP),
    "wan2.2-t2v-a14b": (WAN, WAN_VAE, CLIP),
    "ltx-video-2b": (
        LTX,
        {
            "block_out_channels": [4, 4, 8, 8],
            "decoder_block_out_channels": [4, 4, 8, 8],
            "layers_per_block": [1, 1, 1, 1, 1],
            "decoder_layers_per_block": [1, 1, 1, 1, 1],
        },
        CLIP8,
    ),
    "ltx-video-13b": (LTX, LTX_095, CLIP8),
    "ltx-2": (
        {
            **LTX,
            "audio_num_attention_heads": 2,
            "audio_attention_head_dim": 6,
            "audio_cross_attention_dim": 12,
        },
        LTX_095 | {"block_out_channels": [16, 32, 64, 128]},
        CLIP8,
    ),
    "mochi-1": (
        {
            "num_layers": 2,
            "num_attention_heads": 2,
            "attention_head_dim": 12,
            "pooled_projection_dim": 8,
            "text_embed_dim": 16,
            "time_embed_dim": 8,
        },
        {
            "encoder_block_out_channels": [32, 32, 32, 32],
            "decoder_block_out_channels": [32, 32, 32, 32],
            "layers_per_block": [1, 1, 1, 1, 1],
        },
        (7, 32, 32),
    ),
    "allegro": (
        {
            "num_layers": 2,
            "num_attention_heads": 2,
            "attention_head_dim": 12,
            "cross_attention_dim": 24,
            "caption_channels": 16,
            "sample_height": 20,
            "sample_width": 20,
            "sample_frames": 6,
        },
        {
            "block_out_channels": [2, 2, 2, 2],
            "layers_per_block": 1,
            "norm_num_groups": 2,
            "sample_size": 128,
        },
        (24, 128, 128),
    ),
    "cosmos-predict2-2b": (COSMOS, WAN_VAE, CLIP),
    "cosmos-predict2-14b": (COSMOS, WAN_VAE, CLIP),
    "sana-video-2b": (
        {
            "num_layers": 2,
            "num_attention_heads": 2,
            "attention_head_dim": 12,
            "num_cross_attention_heads": 2,
            "cross_attention_head_dim": 12,
            "cross_attention_dim": 24,
            "caption_channels": 16,
        },
        WAN_VAE,
        CLIP,
    ),
    "skyreels-v2-14b": (WAN, WAN_VAE, CLIP),
}


BATCHED = {
    "hunyuanvideo-1.5",
    "mochi-1",
    "ltx-2",
    "wan2.2-ti2v-5b",
    "cogvideox1.5-5b",
}  # run with two samples


def reduced(name: str) -> tuple[Model, Workload]:
    """The reduced model and a clip for it.  Latent channels, factors and patches stay the public
    ones."""
    denoiser, vae, (frames, height, width) = REDUCED[name]
    model, workload = (
        load(Model, name),
        load(
            Workload,
            "tiny-video",
            {
                "frames": frames,
                "height": height,
                "width": width,
                "batch": 2 if name in BATCHED else 1,
            },
        ),
    )
    tile = {"tile": (24, 128, 128), "tile_stride": (16, 8, 48)} if model.vae.tile else {}
    return model.model_copy(
        update={
            "denoiser": dataclasses.replace(
                model.denoiser,
                config={**model.denoiser.config, **denoiser},
                text_tokens=T5["tokens"] if model.denoiser.text_tokens else 0,
            ),
            "vae": dataclasses.replace(model.vae, config={**model.vae.config, **vae}, **tile),
            "text_encoders": tuple(
                dataclasses.replace(encoder, **T5) for encoder in model.text_encoders
            ),
        }
    ), workload
