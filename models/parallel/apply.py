"""Put a pipeline on a mesh, in place."""

from functools import partial

from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from models.ar.model import AutoregressiveTransformer
from models.denoiser import blocks_of
from models.dit.model import SpatioTemporalDiT
from models.dit.spec import DiTConfig
from models.parallel.guidance import Branches
from models.parallel.mesh import Mesh
from models.parallel.sequence import SpreadLayout
from models.parallel.spec import Parallel, Shape, refusal
from models.parallel.tensor import cut_blocks
from models.pipeline import VideoPipeline


def parallelise(pipeline: VideoPipeline, mesh: Mesh) -> None:
    """Spread a pipeline's denoiser and decode over a mesh.  Collective: every rank calls it.

    Raises ValueError for a model that cannot be cut so."""
    parallel, denoiser = mesh.parallel, pipeline.denoiser
    if isinstance(denoiser, AutoregressiveTransformer):
        raise ValueError("an auto-regressive model runs on one rank")
    of_denoiser = parallel.sequence > 1 or parallel.tensor > 1 or parallel.shard_weights
    if of_denoiser and isinstance(denoiser, SpatioTemporalDiT):
        _spread_own(denoiser, mesh)
    elif parallel.sequence > 1 or parallel.tensor > 1:
        from models.parallel.public import spread_public  # diffusers takes seconds to import

        spread_public(denoiser, mesh)
    if parallel.shard_weights:
        shard_weights(denoiser, parallel, mesh.devices.device_type)
    branches = mesh.axis("cfg")
    denoiser.branches = None if branches is None else Branches(branches)
    pipeline.decoding = mesh.vae


def shape_of(config: DiTConfig, tokens: int | None = None, guided: bool = True) -> Shape:
    """What a mesh must divide, of an own DiT."""
    return Shape(
        heads=config.num_heads,
        tokens=tokens,
        guided=guided,
        attention=config.attention,
        qk_norm=config.qk_norm,
        mlp_width=config.mlp_width,
    )


def _spread_own(denoiser: SpatioTemporalDiT, mesh: Mesh) -> None:
    parallel, config = mesh.parallel, denoiser.config
    reason = refusal(parallel, shape_of(config))
    if reason is not None:
        raise ValueError(reason)
    if parallel.tensor > 1:
        cut_blocks(denoiser, mesh)
    if parallel.sequence > 1:
        axes = {"ulysses": mesh.axis("ulysses"), "ring": mesh.axis("ring")}
        denoiser.lay_out_by(partial(SpreadLayout, **axes))


def shard_weights(denoiser: nn.Module, parallel: Parallel, device_type: str) -> None:
    """Every block's weights over all ranks, gathered as it runs."""
    devices = init_device_mesh(device_type, (parallel.ranks,))
    for block in blocks_of(denoiser):
        fully_shard(block, mesh=devices)
    fully_shard(denoiser, mesh=devices)
