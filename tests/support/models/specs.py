"""Configs of the smallest own models, field by field."""

DIT = {
    "in_channels": 4,
    "out_channels": 4,
    "patch_size": (1, 2, 2),
    "width": 64,
    "depth": 2,
    "num_heads": 2,
    "mlp_ratio": 4.0,
    "num_classes": 0,
    "text": "none",
    "text_width": 0,
    "text_tokens": 0,
    "single_blocks": 0,
    "modulation": "per_block",
    "qk_norm": "none",
    "positions": "rope",
    "rope_axes": None,
    "attention": "full",
    "window": None,
    "window_tiles": None,
    "masked_condition": False,
    "control_blocks": 0,
}


VAE = {
    "in_channels": 3,
    "latent_channels": 4,
    "channels": (8, 8, 8, 8),
    "res_blocks": 1,
    "temporal_factor": 8,
    "temporal_kernel": 3,
    "causal": True,
    "first_frame_alone": False,
}
