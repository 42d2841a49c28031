"""fvcore's rules, PyTorch's own counter and the closed form agree on any shape."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.count.closed import dit as closed_form
from bench.count.trace import trace
from models.dit.model import SpatioTemporalDiT
from models.spec import DiTConfig, VAEConfig
from models.stages import train_once
from models.vae.model import VideoVAE
from models.vae.parts import decode_in_parts
from models.vae.tiling import Tiling
from support.models.specs import VAE
from support.models.tracing import empty, on_meta

META = torch.device("meta")


@st.composite
def dit_configs(draw):
    """Any combination of the choices that DiTConfig allows."""
    heads, e = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    text = draw(st.sampled_from(["none", "pooled", "cross", "joint"]))
    attention = (
        "full" if text == "joint" else draw(st.sampled_from(["full", "factorised", "windowed"]))
    )
    depth, windowed, c = 2, attention == "windowed", draw(st.integers(1, 3))
    return DiTConfig(
        in_channels=c,
        out_channels=2 * c,
        patch_size=draw(st.tuples(*[st.integers(1, 2)] * 3)),
        width=4 * heads * e,
        depth=depth,
        num_heads=heads,
        mlp_ratio=2.0,
        num_classes=draw(st.sampled_from([0, 10])),
        text=text,
        text_width=0 if text == "none" else 24,
        text_tokens=7 if text in ("cross", "joint") else 0,
        single_blocks=draw(st.integers(0, depth)) if text == "joint" else 0,
        modulation=draw(st.sampled_from(["per_block", "shared"])),
        qk_norm=draw(st.sampled_from(["none", "per_head", "across_heads"])),
        positions=draw(st.sampled_from(["rope", "sincos"])),
        rope_axes=None,
        attention=attention,
        window=draw(st.tuples(*[st.integers(1, 3)] * 3)) if windowed else None,
        window_tiles=draw(st.tuples(*[st.sampled_from([1, 3])] * 3)) if windowed else None,
        masked_condition=draw(st.booleans()),
        control_blocks=draw(st.integers(0, depth)),
    )


@settings(max_examples=15, deadline=None)
@given(
    dit_configs(),
    st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 4)),
    st.integers(1, 2),
)
def test_three_counters_agree_on_any_dit(config, grid, batch):
    latents = tuple(g * p for g, p in zip(grid, config.patch_size, strict=True))
    model = on_meta(SpatioTemporalDiT, config)
    x, t = empty(batch, config.in_channels, *latents), empty(batch)
    condition = model.example_condition(latents, batch, empty, unconditional=False)
    traced = trace(lambda: model(x, t, **condition))
    expected = closed_form.dit_forward(config, latents, batch)
    assert traced.flops_by_class() == expected
    assert traced.torch_flops == sum(expected.values())
    assert sum(p.numel() for p in model.parameters()) == closed_form.dit_parameters(config)


@settings(max_examples=6, deadline=None)
@given(
    dit_configs(), st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3)), st.booleans()
)
def test_three_counters_agree_on_training_any_dit(config, grid, checkpointing):
    """Backward: two products for each, but for the first layers; with checkpointing the blocks'
    forward once more."""
    latents = tuple(g * p for g, p in zip(grid, config.patch_size, strict=True))
    model = on_meta(SpatioTemporalDiT, config)
    x, condition = (
        empty(2, config.in_channels, *latents),
        model.example_condition(latents, 2, empty, unconditional=False),
    )
    traced = trace(lambda: train_once(model, x, condition))
    expected = closed_form.dit_train(config, latents, 2)
    assert traced.flops_by_class() == expected
    assert traced.torch_flops == sum(expected.values())
    model.gradient_checkpointing = checkpointing
    again = trace(lambda: train_once(model, x, condition))
    if checkpointing:
        assert traced.torch_flops < again.torch_flops < 4 / 3 * traced.torch_flops + 1
    else:
        assert again.torch_flops == traced.torch_flops


@settings(max_examples=16, deadline=None)
@given(
    st.integers(1, 2),
    st.sampled_from([1, 2, 4]),
    st.booleans(),
    st.booleans(),
    st.integers(1, 3),
    st.integers(1, 2),
)
def test_three_counters_agree_on_any_vae(res_blocks, factor, causal, alone, groups, batch):
    config = VAEConfig(
        **{
            **VAE,
            "channels": (4, 8, 8),
            "res_blocks": res_blocks,
            "temporal_factor": factor,
            "causal": causal,
            "first_frame_alone": alone,
        }
    )
    frames = groups * factor + 1 if alone else groups * factor
    shape = config.latent_shape(frames, 16, 24)
    model = on_meta(VideoVAE, config)
    encode = trace(lambda: model.encode(torch.empty(batch, 3, frames, 16, 24, device=META)))
    decode = trace(lambda: model.decode(torch.empty(batch, 4, *shape, device=META)))
    for traced, expected in (
        (encode, closed_form.vae_encode(config, frames, 16, 24, batch)),
        (decode, closed_form.vae_decode(config, shape, batch)),
    ):
        assert traced.flops_by_class() == expected
        assert traced.torch_flops == sum(expected.values())


@settings(max_examples=4, deadline=None)
@given(
    st.booleans(),
    st.booleans(),
    st.integers(1, 5),
    st.integers(1, 3),
    st.sampled_from([None, (3, 1), (2, 0)]),
)
def test_three_counters_agree_on_decoding_in_parts(causal, alone, frames, chunk, tile):
    config = VAEConfig(
        **{
            **VAE,
            "channels": (4, 8, 8),
            "temporal_factor": 2,
            "causal": causal,
            "first_frame_alone": alone,
        }
    )
    tiling = Tiling(size=tile[0], overlap=tile[1]) if tile else None
    model, latents = on_meta(VideoVAE, config), empty(2, 4, frames, 4, 5)
    traced = trace(lambda: decode_in_parts(model, latents, chunk=chunk, tiling=tiling))
    expected = closed_form.vae_decode(config, (frames, 4, 5), 2, chunk, tiling)
    assert traced.flops_by_class() == expected
    assert traced.torch_flops == sum(expected.values())
