"""Which operators multiply, by which rule of fvcore's, and which are known to multiply nothing.

fvcore counts multiply-accumulates for products and convolutions (1 MAC = 2 FLOPs here), and about 5
FLOPs an element for norms, which are kept apart.
"""

import collections
import math
from collections.abc import Callable
from typing import Any

import torch
from fvcore.nn import jit_handles as fvcore_rules
from torch import Tensor
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten

PRODUCT_CLASSES = ("linear", "attention", "conv", "other")


class _Value:
    """What fvcore's rules read of a torch.jit value."""

    def __init__(self, value: Any):
        self.value = value

    def isCompleteTensor(self) -> bool:
        return isinstance(self.value, Tensor)

    def type(self) -> "_Value":
        return self

    def sizes(self) -> list[int]:
        return list(self.value.shape)

    def toIValue(self) -> Any:
        return self.value


def _rule(
    handler: Callable, first: int = 0, last: int | None = None
) -> Callable[[tuple, Any], int]:
    """fvcore's handler over the operator's arguments from `first` to `last`."""

    def macs(args: tuple, out: Any) -> int:
        outputs = [_Value(o) for o in (out if isinstance(out, (tuple, list)) else (out,))]
        result = handler([_Value(a) for a in args[first:last]], outputs)
        return int(sum(result.values()) if isinstance(result, collections.Counter) else result)

    return macs


def _conv(args: tuple, out: Any) -> int:
    # aten::convolution has 9 arguments; fvcore expects the 13 of the older aten::_convolution.
    return _rule(fvcore_rules.conv_flop_jit)((*args, *([None] * (13 - len(args)))), out)


def _attention(args: tuple, out: Any) -> int:
    """MACs of both products, of an attention called by its operator (models.parallel.ring)."""
    q, k = args[0], args[1]
    return 2 * q.numel() * k.shape[-2]


# operator -> (class, multiply-accumulates)
PRODUCTS: dict[Any, tuple[str, Callable[[tuple, Any], int]]] = {
    aten.mm.default: ("linear", _rule(fvcore_rules.matmul_flop_jit)),
    aten.addmm.default: ("linear", _rule(fvcore_rules.addmm_flop_jit, last=3)),
    aten.bmm.default: ("other", _rule(fvcore_rules.bmm_flop_jit)),
    aten.baddbmm.default: (
        "other",
        _rule(fvcore_rules.bmm_flop_jit, 1, 3),
    ),  # fvcore has no rule of its own
    aten.convolution.default: ("conv", _conv),
    aten._scaled_dot_product_flash_attention_for_cpu.default: ("attention", _attention),
}


def _product_size(first: int) -> Callable[[tuple, Any], tuple[int, int, int]]:
    """(m, n, k) of a product of the operands at `first` and after it; a batch of products counts as
    rows."""

    def size(args: tuple, out: Any) -> tuple[int, int, int]:
        a, b = args[first], args[first + 1]
        return a[..., 0].numel(), b.shape[-1], a.shape[-1]

    return size


def _conv_size(args: tuple, out: Tensor) -> tuple[int, int, int]:
    weight = args[1]
    return out[:, 0].numel(), weight.shape[0] // args[8], weight[0].numel()


SIZES = {
    aten.mm.default: _product_size(0),
    aten.addmm.default: _product_size(1),
    aten.bmm.default: _product_size(0),
    aten.baddbmm.default: _product_size(1),
    aten.convolution.default: _conv_size,
    aten._scaled_dot_product_flash_attention_for_cpu.default: lambda args, out: (
        args[0].shape[-2],
        args[1].shape[-2],
        args[0].shape[-1],
    ),
}
# ConvParams::use_mkldnn in ATen/native/Convolution.cpp: up to this, im2col in one thread a sample
SMALL_CONV = 20_480


def small_on_cpu(args: tuple) -> bool:
    """Does PyTorch on a CPU leave this convolution to its own im2col kernel?  That is several times
    slower than oneDNN's."""
    x, weight, transposed, groups = args[0], args[1], args[6], args[8]
    return (
        x.dtype == torch.float32
        and groups == 1
        and not transposed
        and x.shape[0] == 1
        and not (weight.shape[-1] > 3 and weight.shape[-2] > 3)
        and math.prod(x.shape[:4]) <= SMALL_CONV
    )


# operator -> FLOPs
NORMS: dict[Any, Callable[[tuple, Any], int]] = {
    aten.native_layer_norm.default: _rule(fvcore_rules.norm_flop_counter(2)),
    aten.native_group_norm.default: _rule(fvcore_rules.norm_flop_counter(1)),
}

# Operators that take several tensors and yet multiply none with another along a contracted axis;
# those that
# torch tags as pointwise need no entry.
_HARMLESS = {
    "cat",
    "stack",
    "copy_",
    "_to_copy",
    "embedding",
    "index",
    "index_select",
    "index_put",
    "index_put_",
    "gather",
    "scatter",
    "where",
    "set_",
    "index_copy",
    "index_copy_",
    "masked_fill",
    "masked_scatter",
    "bucketize",
    "searchsorted",
    "native_dropout",
    "addcmul",
    "addcdiv",
    "lerp",
    "equal",
    "_softmax_backward_data",
    "native_layer_norm_backward",
    "native_group_norm_backward",
    "_fused_rms_norm_backward",
    "embedding_dense_backward",
}
_VIEWS = {
    "view",
    "_unsafe_view",
    "reshape",
    "t",
    "transpose",
    "permute",
    "expand",
    "slice",
    "select",
    "unbind",
    "split",
    "split_with_sizes",
    "squeeze",
    "unsqueeze",
    "detach",
    "alias",
    "as_strided",
    "_reshape_alias",
    "unfold",
    "chunk",
    "view_as_real",
    "view_as_complex",
    "diagonal",
    "movedim",
    "lift_fresh",
}
_FACTORIES = {"empty", "empty_like", "empty_strided", "new_empty"}


class UncountedOperator(ValueError):
    """An operator that may hold products has no rule."""


def kind_without_products(func: Any, args: tuple) -> str:
    name = func.name().removeprefix("aten::").split(".")[0]
    if func.name().startswith(("_c10d_functional::", "c10d::")):
        return "view"  # counted apart: bench.count.parallel
    if not func.name().startswith("aten::"):
        raise UncountedOperator(
            f"operator {func.name()} has no FLOP rule; add one to PRODUCTS in bench/count/rules.py"
        )
    if name in _VIEWS:
        return "view"
    if name in _FACTORIES:
        return "factory"
    tensors = [a for a in tree_leaves(args) if isinstance(a, Tensor)]
    if torch.Tag.pointwise in func.tags or name in _HARMLESS or len(tensors) < 2:
        return "memory"
    raise UncountedOperator(
        f"operator {func.name()} on {', '.join(str(tuple(t.shape)) for t in tensors)} may hold"
        " products and has no FLOP rule; add it to PRODUCTS or _HARMLESS in bench/count/rules.py"
    )
