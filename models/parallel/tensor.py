"""Tensor parallelism of own blocks: each pair of products by columns, then rows (Megatron-LM, arXiv
1909.08053).

DTensor lays the weights out; products run on the local parts.  A product of DTensors costs the host
milliseconds a call under inference mode (torch 2.13), and hides its collective from the clock.

A fused projection holds several matrices side by side.  Its rows are put in an order in which one
cut gives each rank its share of each matrix, so that a block runs as before with fewer heads.
"""

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Shard, distribute_tensor

from models import kernels
from models.dit.attention import CrossAttention, SelfAttention
from models.dit.blocks import SingleStreamBlock
from models.dit.model import SpatioTemporalDiT
from models.layers import MLP
from models.parallel.mesh import Mesh, Ranks


class RowsLinear(nn.Module):
    """A linear layer whose inputs lie on several ranks: each multiplies its own, and all sum."""

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter | None, ranks: Ranks):
        """weight: (D_out, D_in / ranks)."""
        super().__init__()
        self.weight, self.bias, self.ranks = weight, bias, ranks

    def forward(self, x: Tensor) -> Tensor:
        """(..., N, D_in / ranks) -> (..., N, D_out), the same on every rank."""
        y = self.ranks.sum(kernels.linear(x, self.weight))
        return y if self.bias is None else y + self.bias


def cut_blocks(denoiser: SpatioTemporalDiT, mesh: Mesh) -> None:
    """Cut the products of every block over the mesh's axis `tensor`, in place."""
    ranks, devices = mesh.axes["tensor"], mesh.devices["tensor"]
    for module in list(denoiser.modules()):
        cut = next((how for kind, how in CUTS.items() if isinstance(module, kind)), None)
        if cut is None:
            continue
        by_columns, by_rows = cut(module, ranks.size)
        for name in by_columns:
            _cut_columns(getattr(module, name), devices)
        for name in by_rows:
            whole = getattr(module, name)
            weight = _part(whole.weight, devices, 1)
            setattr(module, name, RowsLinear(weight, whole.bias, ranks))


def _cut_columns(linear: nn.Linear, devices: DeviceMesh) -> None:
    linear.weight = _part(linear.weight, devices, 0)
    linear.out_features = linear.weight.shape[0]
    if linear.bias is not None:
        linear.bias = _part(linear.bias, devices, 0)


def _part(whole: nn.Parameter, devices: DeviceMesh, dimension: int) -> nn.Parameter:
    """This rank's."""
    part = distribute_tensor(whole.detach(), devices, [Shard(dimension)]).to_local()
    return nn.Parameter(part.contiguous(), requires_grad=whole.requires_grad)


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
