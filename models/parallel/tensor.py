"""Tensor parallelism of own blocks: each pair of products by columns, then rows (Megatron-LM, arXiv
1909.08053), through DTensor's plans.

A fused projection holds several matrices side by side.  Its rows are put in an order in which one
cut gives each rank its share of each matrix, so that a block runs as before with fewer heads.
"""

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)

from models.dit.attention import CrossAttention, SelfAttention
from models.dit.blocks import SingleStreamBlock
from models.dit.model import SpatioTemporalDiT
from models.layers import MLP


def cut_blocks(denoiser: SpatioTemporalDiT, devices: DeviceMesh) -> None:
    """Cut the products of every block over a mesh of one dimension, in place."""
    degree = devices.size()
    for module in list(denoiser.modules()):
        cut = next((how for kind, how in CUTS.items() if isinstance(module, kind)), None)
        if cut is None:
            continue
        by_columns, by_rows = cut(module, degree)
        plan = {name: ColwiseParallel() for name in by_columns}
        plan |= {name: RowwiseParallel() for name in by_rows}
        parallelize_module(module, devices, plan)


def _cut_self_attention(module: SelfAttention, degree: int) -> tuple[list[str], list[str]]:
    width = module.qkv.in_features
    _reorder_rows(module.qkv, [width, width, width], degree)
    module.num_heads //= degree
    return ["qkv"], [] if module.proj is None else ["proj"]


def _cut_cross_attention(module: CrossAttention, degree: int) -> tuple[list[str], list[str]]:
    width = module.q.in_features
    _reorder_rows(module.kv, [width, width], degree)
    module.num_heads //= degree
    return ["q", "kv"], ["proj"]


def _cut_mlp(module: MLP, degree: int) -> tuple[list[str], list[str]]:
    return ["fc1"], ["fc2"]


def _cut_single_stream(module: SingleStreamBlock, degree: int) -> tuple[list[str], list[str]]:
    width, hidden = module.width, module.into.out_features - 3 * module.width
    _reorder_rows(module.into, [width, width, width, hidden], degree)
    _reorder_columns(module.out, [width, hidden], degree)
    module.num_heads //= degree
    module.width //= degree
    return ["into"], ["out"]


CUTS = {
    SelfAttention: _cut_self_attention,
    CrossAttention: _cut_cross_attention,
    MLP: _cut_mlp,
    SingleStreamBlock: _cut_single_stream,
}


@torch.no_grad()
def _reorder_rows(linear: nn.Linear, sizes: list[int], degree: int) -> None:
    order = _by_rank(sizes, degree, linear.weight)
    linear.weight.copy_(linear.weight[order])
    if linear.bias is not None:
        linear.bias.copy_(linear.bias[order])


@torch.no_grad()
def _reorder_columns(linear: nn.Linear, sizes: list[int], degree: int) -> None:
    linear.weight.copy_(linear.weight[:, _by_rank(sizes, degree, linear.weight)])


def _by_rank(sizes: list[int], degree: int, like: Tensor) -> Tensor:
    """Indices of matrices of such sizes, in the order: rank 0's share of each, rank 1's, ..."""
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return torch.cat(
        [
            torch.arange(n // degree, device=like.device) + start + rank * (n // degree)
            for rank in range(degree)
            for start, n in zip(starts, sizes, strict=True)
        ]
    )
