"""Own and public models on one process and on a mesh: how far their steps lie apart."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from bench.count.parallel.closed import weight_messages
from bench.count.parallel.seen import CollectivesMode
from bench.count.parallel.sent import Sent, summed
from models.parallel.apply import parallelise
from models.parallel.mesh import make_mesh
from models.parallel.spec import Parallel
from models.pipeline import VideoPipeline, build_pipeline
from models.spec import DiTConfig, VAEConfig
from models.stages import GUIDANCE_SCALE, example_inputs
from models.vae.tiling import Tiling
from support.models.own import CPU, KINDS
from support.models.specs import DIT, VAE
from support.models.zoo_reduced import reduced

ODD = (3, 6, 10)  # 3 x 3 x 5 = 45 tokens: neither 2 nor 4 divides them
ON_TWO: tuple[dict[str, Any], ...] = (
    {"cfg": 2},
    {"ulysses": 2},
    {"ring": 2},
    {"tensor": 2},
    {"data": 2, "shard_weights": True},
)
ON_FOUR: tuple[dict[str, Any], ...] = (
    {"ulysses": 4},
    {"ring": 4},
    {"ring": 2, "ulysses": 2},
    {"cfg": 2, "ulysses": 2},
    {"cfg": 2, "tensor": 2},
    {"ulysses": 2, "tensor": 2},
    {"cfg": 2, "ring": 2, "shard_weights": True},
)
Apart = dict[tuple[str, str], float | str]
"""(model, mesh in words) -> the largest difference beside the largest value, or why it was
refused."""


def own_config(kind: str) -> DiTConfig:
    return DiTConfig(**DIT | {"num_heads": 4} | KINDS[kind])


def _own(kind: str) -> VideoPipeline:
    config, vae = own_config(kind), VAEConfig(**VAE)
    return build_pipeline(
        config, vae, (), device=CPU, dtype=torch.float32, seed=0, stages=("denoise_step",)
    )


def _public(name: str) -> VideoPipeline:
    model, _ = reduced(name)
    return build_pipeline(
        model.denoiser,
        model.vae,
        (),
        device=CPU,
        dtype=torch.float32,
        seed=0,
        stages=("denoise_step",),
    )


@torch.no_grad()
def _step(pipeline: VideoPipeline, channels: int, shape: tuple[int, int, int]) -> Tensor:
    made = example_inputs(
        pipeline,
        batch=1,
        channels=channels,
        latent_shape=shape,
        device=CPU,
        dtype=torch.float32,
        seed=1,
    )
    return pipeline.denoise_step(
        made.latents, made.t, -0.1, made.condition, made.unconditional, GUIDANCE_SCALE
    )


def gathered_weights() -> tuple[list[Sent], list[Sent]]:
    """What two ranks send of sharded weights in a second forward, and what is counted of it."""
    parallel = Parallel(data=2, shard_weights=True)
    pipeline, mesh = _own("plain"), make_mesh(parallel, "cpu")
    blocks = [[tuple(p.shape) for p in block.parameters()] for block in pipeline.denoiser.blocks]
    counted = weight_messages(blocks, parallel.ranks, 4)
    parallelise(pipeline, mesh)
    x, t = torch.randn(1, DIT["in_channels"], *ODD), torch.full((1,), 0.5)
    seen = CollectivesMode(mesh)
    with torch.no_grad():
        pipeline.denoiser(x, t)  # what lies outside of blocks is gathered here, and kept
        with seen:
            pipeline.denoiser(x, t)
    named = [replace(message, axis="weights") for message in seen.messages]
    return summed(named), counted


def own_steps_apart(kinds: list[str], meshes: list[dict[str, Any]]) -> Apart:
    """Own DiTs on every mesh."""
    out: Apart = {}
    for kind in kinds:
        alone = _step(_own(kind), DIT["in_channels"], ODD)
        for degrees in meshes:
            parallel = Parallel(**degrees)
            pipeline = _own(kind)
            try:
                parallelise(pipeline, make_mesh(parallel, "cpu"))
            except ValueError as error:
                out[kind, parallel.words()] = str(error)
                continue
            out[kind, parallel.words()] = _apart(_step(pipeline, DIT["in_channels"], ODD), alone)
    return out


def own_apart(kinds: list[str], meshes: list[dict[str, Any]]) -> tuple[Apart, dict[str, float]]:
    """Steps of own DiTs on every mesh, and decodes."""
    return own_steps_apart(kinds, meshes), decodes_apart(torch.distributed.get_world_size())


def public_steps_apart(names: list[str], meshes: list[dict[str, Any]]) -> Apart:
    """Reduced public models on every mesh."""
    out: Apart = {}
    for name in names:
        model, workload = reduced(name)
        shape, channels = model.latent_shape(workload), model.denoiser.in_channels
        alone = _step(_public(name), channels, shape)
        for degrees in meshes:
            parallel = Parallel(**degrees)
            pipeline = _public(name)
            try:
                parallelise(pipeline, make_mesh(parallel, "cpu"))
            except ValueError as error:
                out[name, parallel.words()] = str(error)
                continue
            try:
                out[name, parallel.words()] = _apart(_step(pipeline, channels, shape), alone)
            except (RuntimeError, AttributeError) as error:
                out[name, parallel.words()] = f"{type(error).__name__}: {error}"
    return out


def decodes_apart(ranks: int) -> dict[str, float]:
    """A decode in tiles of a causal VAE, one in time parts of a symmetric one."""
    from models.parallel.decode import decode_on_ranks
    from models.vae.parts import decode_in_parts

    group = make_mesh(Parallel(data=ranks, vae=ranks), "cpu").vae
    assert group is not None
    out = {}
    for name, causal, tiling in (
        ("tiles", True, Tiling(size=4, overlap=2)),
        ("time", False, None),
        ("tiles of a symmetric VAE", False, Tiling(size=4, overlap=2)),
    ):
        config = VAEConfig(**VAE | {"causal": causal})
        pipeline = build_pipeline(
            DiTConfig(**DIT),
            config,
            (),
            device=CPU,
            dtype=torch.float32,
            seed=0,
            stages=("vae_decode",),
        )
        latents = torch.randn(
            1, config.latent_channels, 5, 6, 7, generator=torch.Generator().manual_seed(3)
        )
        with torch.no_grad():
            cut = {"chunk": 2, "tiling": tiling}
            alone = decode_in_parts(pipeline.vae, latents, **cut)
            frames = alone.shape[2]
            shared = decode_on_ranks(pipeline.vae, latents, frames, ranks=group, **cut)
        out[name] = _apart(shared, alone)
    return out


def _apart(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())
