"""FLOPs by fvcore's per-operator rules, on meta tensors, so that 20 B parameters cost no memory.

fvcore's own tracer cannot do this: it needs real tensors (docs/methodology.md).  Here a dispatch
mode sees every operator as it runs on meta and hands its shapes to fvcore's rule for that
operator.  fvcore counts multiply-accumulates for products and convolutions (1 MAC = 2 FLOPs here),
and about 5 FLOPs an element for norms, which are kept apart.

Attention is recognised by intercepting `scaled_dot_product_attention`: on meta it decomposes into
plain bmm.  An operator that may multiply two tensors and has no rule stops the count.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.module_tracker import ModuleTracker

from bench.count.memory import LiveBytes
from bench.count.rules import (
    NORMS,
    PRODUCT_CLASSES,
    PRODUCTS,
    SIZES,
    UncountedOperator,
    kind_without_products,
    small_on_cpu,
)

aten = torch.ops.aten
DTENSOR = "torch.distributed.tensor"


@dataclass(frozen=True)
class Op:
    """One operator as it ran."""

    name: str
    kind: str
    """linear | attention | conv | other (a product of another sort) | norm | memory (elementwise,
    copy, reduction)."""
    module: str
    """Dotted path of the innermost module, from the root's class name."""
    macs: int
    """Multiply-accumulates of products and convolutions."""
    norm_flops: int
    """fvcore's estimate for norms; not part of any FLOP total."""
    bytes_in: int
    bytes_out: int
    unfused_bytes: int
    """Traffic of the operator run unfused: for attention with the scores written out, else bytes_in
    + bytes_out."""
    size: tuple[int, int, int] = (0, 0, 0)
    """m, n, k of a product; attention: queries, keys, head size; convolution: positions, channels,
    channels x taps."""
    small: bool = False
    """A convolution that PyTorch hands to its im2col kernel on a CPU."""


@dataclass(frozen=True)
class Trace:
    """A call seen by two counters at once."""

    ops: list[Op]
    """What touches memory, in order; views left out."""
    torch_flops: int
    """torch.utils.flop_counter's own count: it has its own formulas, and sees attention on meta as
    bmm."""
    peak_bytes: int
    """Modelled peak of the tensors made during the call (bench.count.memory)."""

    def flops_by_class(self) -> dict[str, int]:
        """By fvcore's rules; 1 MAC = 2 FLOPs."""
        return {
            kind: 2 * sum(op.macs for op in self.ops if op.kind == kind) for kind in PRODUCT_CLASSES
        }


def trace(call: Callable[[], Any]) -> Trace:
    """Run `call` once on meta tensors under both counters.

    Raises UncountedOperator, naming the operator, where one may multiply tensors and no rule is
    known."""
    recorder = _Recorder()
    with (
        torch.no_grad(),
        FlopCounterMode(display=False) as counter,
        recorder.tracker,
        _LayerMarker(recorder),
        recorder,
    ):
        call()
    return Trace(recorder.ops, counter.get_total_flops(), recorder.live.peak)


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.ops: list[Op] = []
        self.live = LiveBytes()
        self.tracker = ModuleTracker()
        self.attention_macs: int | None = (
            None  # counts up while inside scaled_dot_product_attention
        )
        self.in_backward = False
        self.attended = self.other = (
            False  # was there attention, or a product of another sort, so far
        )
        self.in_linear = False  # F.linear runs as mm, addmm or, on strided input, bmm

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if any(t.__module__.startswith(DTENSOR) for t in types):
            return NotImplemented  # taken apart first, so that this rank's share alone is counted
        out = (
            _group_norm(*args)
            if func is aten.native_group_norm.default
            else func(*args, **(kwargs or {}))
        )
        self._record(func, args, kwargs or {}, out)
        return out

    def _record(self, func: Any, args: tuple, kwargs: dict, out: Any) -> None:
        macs = norm_flops = 0
        if func in PRODUCTS:
            kind, rule = PRODUCTS[func]
            kind = "linear" if self.in_linear else kind
            if kind == "other" and self.attention_macs is None:
                # Attention's own backward runs as plain bmm: nothing else here does, where the
                # forward had none.
                kind = (
                    "attention" if self.in_backward and self.attended and not self.other else kind
                )
                self.other = self.other or kind == "other"
            macs = rule(args, out)
        elif func in NORMS:
            kind, norm_flops = "norm", NORMS[func](args, out)
        else:
            kind = kind_without_products(func, args)
        if (
            self.attention_macs is not None
        ):  # inside attention: one fused operator is recorded at its end
            self.attention_macs += macs
            return
        if kind == "view":
            return
        self.live.see(out)
        if kind != "factory":
            bytes_in, bytes_out = _bytes((args, kwargs)), _bytes(out)
            self.ops.append(
                Op(
                    str(func).removeprefix("aten."),
                    kind,
                    self.module(),
                    macs,
                    norm_flops,
                    bytes_in,
                    bytes_out,
                    bytes_in + bytes_out,
                    SIZES[func](args, out) if func in SIZES else (0, 0, 0),
                    func is aten.convolution.default and small_on_cpu(args),
                )
            )

    def module(self) -> str:
        return max(self.tracker.parents - {"Global"}, key=len, default="")


class _LayerMarker(TorchFunctionMode):
    """Marks what runs inside F.linear as linear, and inside scaled_dot_product_attention as one
    attention operator."""

    def __init__(self, recorder: _Recorder):
        super().__init__()
        self.recorder = recorder

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs, recorder = kwargs or {}, self.recorder
        if func is F.linear:
            recorder.in_linear = True
            try:
                return func(*args, **kwargs)
            finally:
                recorder.in_linear = False
        if func is Tensor.backward:
            recorder.in_backward = True
            try:
                return func(*args, **kwargs)
            finally:
                recorder.in_backward = False
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        recorder.attention_macs = 0
        try:
            out = func(*args, **kwargs)
            macs = recorder.attention_macs
        finally:
            recorder.attention_macs = None
        recorder.live.see(out)
        recorder.attended = True
        q, k, v = (
            args[i] if len(args) > i else kwargs[name]
            for i, name in enumerate(("query", "key", "value"))
        )
        if macs == 0:
            raise UncountedOperator(
                "scaled_dot_product_attention ran as a fused kernel: count on meta tensors"
            )
        moved, written = _bytes((q, k, v)), _bytes(out)
        scores = q[..., 0].numel() * k.shape[-2] * q.element_size()
        recorder.ops.append(
            Op(
                "scaled_dot_product_attention",
                "attention",
                recorder.module(),
                macs,
                0,
                moved,
                written,
                moved + written + 4 * scores,  # scores written, read and written by softmax, read
                (q.shape[-2], k.shape[-2], q.shape[-1]),
            )
        )
        return out


def _group_norm(
    x: Tensor, weight: Any, bias: Any, n: int, c: int, pixels: int, groups: int, eps: float
) -> tuple:
    """The result's shapes.  torch's own kernel for meta takes 3 ms, and a VAE in tiles calls it
    10,000 times."""
    if not x.is_meta:
        return aten.native_group_norm.default(x, weight, bias, n, c, pixels, groups, eps)
    return torch.empty_like(x), x.new_empty(n, groups), x.new_empty(n, groups)


def _bytes(tree: Any) -> int:
    """Bytes of the distinct elements of the tensors in a tree: an expanded axis is stored once."""
    return sum(_stored_elements(t) * t.element_size() for t in _tensors(tree))


def _tensors(tree: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))


def _stored_elements(t: Tensor) -> int:
    count = 1
    for size, stride in zip(t.shape, t.stride(), strict=True):
        count *= size if stride else 1
    return count
