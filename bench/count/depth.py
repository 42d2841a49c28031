"""What a video's stages hold, counted fast: a public denoiser at two and three blocks, exactly
extrapolated to its depth.  Own ones and users' classes are counted whole.

Blocks of one kind cost the same whatever their number, so work(depth) = work(2) + (depth - 2)
(work(3) - work(2)), to the last FLOP.  Two and three rather than one and two: a class may treat its
first or last block otherwise (Mochi's last one leaves the text out).  A full count takes 5 to 20 s
a model and workload, this one about 1 s, most of it the VAE's.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from bench.count import traffic
from bench.count.trace import trace
from bench.results.counts import ClassWork
from models.denoiser import blocks_of
from models.pipeline import build_pipeline
from models.python.build import build as build_own_class
from models.spec import (
    DiffusersDenoiser,
    DiffusersVAE,
    DiTConfig,
    PythonDenoiser,
    PythonVAE,
    VAEConfig,
)
from models.stages import example_inputs

Denoiser = DiTConfig | DiffusersDenoiser | PythonDenoiser
VAE = VAEConfig | DiffusersVAE | PythonVAE
META = torch.device("meta")
SHALLOW = 2

DEPTH_KEYS: dict[str, tuple[str, ...]] = {
    "HunyuanVideoTransformer3DModel": ("num_layers", "num_single_layers")
}
"""Config keys of diffusers' classes that say how many blocks there are; `num_layers` where the
class is not named."""


def forward_work(
    denoiser: Denoiser,
    latent_shape: tuple[int, int, int],
    dtype: torch.dtype = torch.bfloat16,
) -> ClassWork:
    """One denoiser forward of one sample.  Own DiTs are counted whole: their blocks may
    alternate."""
    if not isinstance(denoiser, DiffusersDenoiser):
        return _traced_forward(denoiser, latent_shape, dtype)
    keys = DEPTH_KEYS.get(denoiser.diffusers, ("num_layers",))
    depths = {key: _field(denoiser, key) for key in keys}
    if min(depths.values()) <= SHALLOW + 1:
        return _traced_forward(denoiser, latent_shape, dtype)

    def at(**deeper: int) -> ClassWork:
        config = {**denoiser.config, **dict.fromkeys(keys, SHALLOW), **deeper}
        return _traced_forward(
            replace(denoiser, config=config, experts=1, boundary=None), latent_shape, dtype
        )

    shallow = at()
    total = shallow
    for key, depth in depths.items():
        total = total + (at(**{key: SHALLOW + 1}) - shallow) * (depth - SHALLOW)
    return total


def decode_flops(vae: VAE, frames: int, height: int, width: int) -> int:
    """FLOPs of the VAE's decoding of one clip, in one piece."""

    def flops(frames: int) -> int:
        latents = torch.empty(
            1,
            vae.latent_channels,
            *vae.latent_shape(frames, height, width),
            device=META,
            dtype=torch.bfloat16,
        )
        return _work(lambda: module.decode(latents, frames)).flops

    module = _vae(vae)
    return _over_frames(vae, frames, flops)


def encode_flops(vae: VAE, frames: int, height: int, width: int) -> int:
    """FLOPs of the VAE's encoding of one clip, in one piece."""

    def flops(frames: int) -> int:
        return _work(
            lambda: module.encode(
                torch.empty(1, 3, frames, height, width, device=META, dtype=torch.bfloat16)
            )
        ).flops

    module = _vae(vae)
    return _over_frames(vae, frames, flops)


def _over_frames(vae: VAE, frames: int, flops: Callable[[int], int]) -> int:
    """Wan's VAE takes one latent frame after another: all after the second cost the same, so three
    and four tell the rest."""
    period = vae.temporal_factor
    beyond, odd = divmod(frames - (2 * period + 1), period)
    if (
        not isinstance(vae, DiffusersVAE)
        or vae.diffusers != "AutoencoderKLWan"
        or odd
        or beyond <= 1
    ):
        return flops(frames)
    three = flops(2 * period + 1)
    return three + beyond * (flops(3 * period + 1) - three)


def denoiser_params(denoiser: Denoiser) -> int:
    """Parameters, all experts together; nothing is allocated."""
    pipeline = build_pipeline(
        denoiser, _no_vae(denoiser), (), device=META, dtype=torch.bfloat16, seed=0
    )
    return sum(p.numel() for p in pipeline.denoiser.parameters())


def blocks(denoiser: Denoiser) -> int:
    """How many, of every kind."""
    if isinstance(denoiser, DiTConfig):
        return denoiser.depth
    if isinstance(denoiser, PythonDenoiser):
        return max(1, len(blocks_of(build_own_class(denoiser, META, torch.bfloat16))))
    keys = DEPTH_KEYS.get(denoiser.diffusers, ("num_layers",))
    return sum(_field(denoiser, key) for key in keys)


def heads(denoiser: Denoiser) -> int:
    """Attention heads of a block.  Raises ValueError where a user's YAML does not say them."""
    if isinstance(denoiser, DiTConfig):
        return denoiser.num_heads
    if isinstance(denoiser, PythonDenoiser):
        return _said(denoiser, "num_heads")
    return _field(denoiser, "num_attention_heads")


def attention_width(denoiser: Denoiser) -> int:
    """Columns of a block's queries: heads times their size.  Raises as `heads`."""
    if isinstance(denoiser, DiTConfig):
        return denoiser.width
    if isinstance(denoiser, PythonDenoiser):
        return _said(denoiser, "width")
    return heads(denoiser) * _field(denoiser, "attention_head_dim")


def _said(denoiser: PythonDenoiser, name: str) -> int:
    value = getattr(denoiser, name)
    if value is None:
        raise ValueError(f"denoiser.{name}: write it into the YAML for a forecast of several cards")
    return value


def _field(denoiser: DiffusersDenoiser, key: str) -> int:
    """Of its config, or the class's default."""
    if key in denoiser.config:
        return denoiser.config[key]
    import inspect

    import diffusers

    return (
        inspect.signature(getattr(diffusers, denoiser.diffusers).__init__).parameters[key].default
    )


def _traced_forward(
    denoiser: Denoiser, latent_shape: tuple[int, int, int], dtype: torch.dtype
) -> ClassWork:
    pipeline = build_pipeline(denoiser, _no_vae(denoiser), (), device=META, dtype=dtype, seed=0)
    inputs = example_inputs(
        pipeline,
        batch=1,
        channels=denoiser.in_channels,
        latent_shape=latent_shape,
        device=META,
        dtype=dtype,
        seed=0,
    )
    pipeline.denoiser.prepare(inputs.latents)
    return _work(lambda: pipeline.predict(inputs.latents, inputs.t, inputs.condition))


def _no_vae(denoiser: Denoiser) -> VAEConfig:
    """A pipeline has one; it is not run."""
    return VAEConfig(
        in_channels=3,
        latent_channels=denoiser.in_channels,
        channels=(1,),
        res_blocks=1,
        temporal_factor=1,
        temporal_kernel=1,
        causal=False,
        first_frame_alone=False,
    )


def _vae(vae: VAE) -> Any:
    if isinstance(vae, DiffusersVAE):
        from models.public import zoo

        return zoo.build(vae, META, torch.bfloat16).eval()
    if isinstance(vae, PythonVAE):
        return build_own_class(vae, META, torch.bfloat16).eval()
    from models.vae.model import VideoVAE

    with META:
        return VideoVAE(vae).to(torch.bfloat16).eval()


def _work(call: Callable[[], Any]) -> ClassWork:
    traced = trace(call)
    by_class = traced.flops_by_class()
    return ClassWork(
        linear_flops=by_class["linear"] + by_class["other"],
        attention_flops=by_class["attention"],
        conv_flops=by_class["conv"],
        elementwise_bytes=traffic.elementwise(traced.ops),
        kernels=len(traced.ops),
    )
