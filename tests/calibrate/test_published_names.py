"""What the words of a published table mean: scopes, models, GPUs."""

import pytest

from bench.calibrate.published.names import (
    Unusable,
    fast_attention,
    read_gpu,
    read_model,
    read_scope,
)
from bench.core.load import names


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        (
            "full pipeline incl. text encoder + VAE decode (inferred: generate.py total time)",
            "text + denoising + vae decode",
        ),
        ("end to end", "text + denoising + vae decode"),
        ("full pipeline excluding text encoder", "denoising + vae decode"),
        ("sampling time without VAE decode", "denoising"),
        ("DiT denoising only (excludes text encoder and VAE)", "denoising"),
        ("DiT only", "denoising"),
        ("denoising loop", "denoising"),
        ("total denoising time", "denoising"),
        ("DiT forward + VAE decode (stacked bar)", "denoising + vae decode"),
        (
            "Full pipeline (text encoding, denoising, VAE decoding), excluding model loading",
            "text + denoising + vae decode",
        ),
        ("DiT denoise, per step", "denoising, per step"),
        ("s/it", "denoising, per step"),
        ("one DiT forward", "denoising, per forward"),
        ("end_to_end", "text + denoising + vae decode"),
        ("dit_only", "denoising"),
        ("per_step", "denoising, per step"),
        ("e2e", "text + denoising + vae decode"),
        ("transformer only", "denoising"),
        ("denoise_loop", "denoising"),
        ("denoise+decode", "denoising + vae decode"),
        ("zippy", "text + denoising + vae decode"),
        ("without_vae", "text + denoising"),
    ],
)
def test_scopes(text, meant):
    assert str(read_scope(text)) == meant


@pytest.mark.parametrize("text", ["unstated", "", "n/a", "VAE decode only", "text_encoder"])
def test_scopes_that_say_nothing_about_denoising(text):
    with pytest.raises(Unusable, match="scope"):
        read_scope(text)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "wan2.1-t2v-1.3b"),
        ("wan 2.1 14b", "wan2.1-t2v-14b"),
        ("Wan2.1-I2V-14B-720P", "wan2.1-t2v-14b"),
        ("Wan2.2-I2V-A14B", "wan2.2-t2v-a14b"),
        ("Wan2.2-TI2V-5B", "wan2.2-ti2v-5b"),
        ("tencent/HunyuanVideo", "hunyuanvideo"),
        ("HunyuanVideo 1.5", "hunyuanvideo-1.5"),
        ("CogVideoX-5B-I2V", "cogvideox-5b"),
        ("CogVideoX1.5-5B", "cogvideox1.5-5b"),
        ("CogVideoX-2b", "cogvideox-2b"),
        ("LTX-Video", "ltx-video-2b"),
        ("LTX-Video-0.9.7-13B", "ltx-video-13b"),
        ("LTX-2", "ltx-2"),
        ("mochi-1-preview", "mochi-1"),
        ("Cosmos-Predict2-14B-Video2World", "cosmos-predict2-14b"),
        ("sora-20b", "sora-20b"),
        ("Wan2.1_T2V_1_3B", "wan2.1-t2v-1.3b"),
        ("DiT-XL/2", "dit-xl-2"),
        ("HunyuanVideo (cfg-distilled)", "hunyuanvideo"),
    ],
)
def test_models(name, config):
    assert read_model(name, names("models")) == config


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("LTX-Video-13B-distilled", "distilled"),
        ("FastHunyuan", "distilled"),
        ("Wan2.1-VACE-14B", "variant"),
        ("Wan2.2-A14B-Lightning", "distilled"),
        ("HunyuanVideo-fp8", "quantised"),
        ("Open-Sora-1.2", "unknown"),
        ("", "empty"),
    ],
)
def test_models_that_are_not_counted(name, reason):
    with pytest.raises(Unusable, match=reason):
        read_model(name, names("models"))


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("H100", "h100-sxm"),
        ("H800/H100", "h100-sxm"),
        ("H100-SXM5-80GB", "h100-sxm"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("H100 NVL", "h100-nvl"),
        ("1x H100", "h100-sxm"),
        ("A100/A800 80GB", "a100-80gb"),
        ("A100-SXM4-40GB", "a100-40gb"),
        ("H200 SXM", "h200"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("H20", "h20"),
        ("L40S", "l40s"),
        ("NVIDIA H100 80GB HBM3", "h100-sxm"),
    ],
)
def test_gpus(name, config):
    assert read_gpu(name, names("gpus"), {})[0] == config


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("8xH100", "several"),
        ("H100 x 8", "several"),
        ("A100/H100", "more than one kind"),
        ("GB300", "no datasheet"),
        ("", "empty"),
    ],
)
def test_gpus_that_cannot_be_used(name, reason):
    with pytest.raises(Unusable, match=reason):
        read_gpu(name, names("gpus"), {})


def test_attention_is_fast_only_where_it_is_said():
    assert fast_attention("FA3")
    assert fast_attention("cuDNN/FA3 baseline (doc wording)")
    assert not fast_attention("unstated (FA2 or FA3; implied FLOP rate fits FA2)")
    with pytest.raises(Unusable, match="sparse"):
        fast_attention("SageAttention2")
