"""What a recipe does to the weights of a denoiser's blocks: quantised, ternary, sparse; and what
weights then take."""

import contextlib
import dataclasses
import operator
import re
from collections.abc import Iterator

import torch
from torch import Tensor, nn

IN_A_BLOCK = re.compile(
    r"(^|\.)\w*blocks\.\d+\."
)  # own and public denoisers keep their blocks in lists of that name


def weight_bytes(module: nn.Module) -> int:
    """Bytes that a module's weights take as they lie now, quantised ones in their own format; a
    weight that several modules share once."""
    storages: dict[int, int] = {}

    def add(tensor: Tensor) -> None:
        if (
            type(tensor) is not Tensor
            and type(tensor) is not nn.Parameter
            and hasattr(tensor, "__tensor_flatten__")
        ):
            for name in tensor.__tensor_flatten__()[0]:
                add(getattr(tensor, name))
        else:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()

    for p in module.parameters():
        add(p.data)
    return sum(storages.values())


def ternary(weight: Tensor) -> Tensor:
    """Each weight as -1, 0 or 1 times the mean magnitude of all (BitNet b1.58, arXiv 2402.17764,
    eq. 1 to 3)."""
    scale = weight.abs().float().mean().clamp(min=1e-5)
    return ((weight.float() / scale).round().clamp(-1, 1) * scale).to(weight.dtype)


def pruned(weight: Tensor) -> Tensor:
    """The two largest of every four weights along a row; the others are 0 (arXiv 2104.08378)."""
    groups = weight.unflatten(-1, (-1, 4))
    keep = torch.zeros_like(groups, dtype=torch.bool).scatter_(
        -1, groups.abs().topk(2, dim=-1).indices, True
    )
    return (groups * keep).flatten(-2)


def make_sparse(denoiser: nn.Module) -> None:
    """Linear layers of the blocks with two of every four weights, in the format of sparse tensor
    cores."""
    for linear in block_linears(denoiser):
        sparse = torch.sparse.to_sparse_semi_structured(pruned(linear.weight))
        linear.weight = nn.Parameter(sparse, requires_grad=False)


def block_linears(denoiser: nn.Module) -> list[nn.Linear]:
    """Linear layers of the blocks whose sides the formats take (multiples of 16); embeddings and
    the last layer stay."""
    return [module for name, module in denoiser.named_modules() if _takes(module, name)]


def _takes(module: nn.Module, name: str) -> bool:
    return (
        isinstance(module, nn.Linear)
        and IN_A_BLOCK.search(f"{name}.") is not None
        and module.in_features % 16 == 0
        and module.out_features % 16 == 0
    )


def quantise(denoiser: nn.Module, form: str) -> None:
    """Linear layers of the blocks in the form that Recipe.quantise names.  The process is left as
    it was: torchao would else turn on tuning for whatever is compiled afterwards."""
    if form == "ternary":
        with torch.no_grad():
            for linear in block_linears(denoiser):
                linear.weight.copy_(ternary(linear.weight))
        return
    from torchao import quantization as ao

    kinds = {
        "int8-weight": (ao.Int8WeightOnlyConfig, {}),
        "int8-dynamic": (ao.Int8DynamicActivationInt8WeightConfig, {}),
        "fp8": (ao.Float8DynamicActivationFloat8WeightConfig, {"granularity": ao.PerRow()}),
    }
    kind, given = kinds[form]
    if "set_inductor_config" in {f.name for f in dataclasses.fields(kind)}:
        given = {**given, "set_inductor_config": False}
    with _settings_kept():
        ao.quantize_(denoiser, kind(**given), filter_fn=_takes)


TURNED_ON = (
    "coordinate_descent_tuning",
    "coordinate_descent_check_all_directions",
    "force_fuse_int_mm_with_mul",
    "fx_graph_cache",
    "triton.unique_kernel_names",
)
"""By torchao's recommended_inductor_config_setter, which versions without set_inductor_config call
in any case."""


@contextlib.contextmanager
def _settings_kept() -> Iterator[None]:
    import torch._inductor.config as inductor

    precision = torch.get_float32_matmul_precision()  # older torchao turns TF32 on as well
    try:
        with inductor.patch({name: operator.attrgetter(name)(inductor) for name in TURNED_ON}):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)
