"""Bytes a stage moves, modelled from its operators: a lower and an upper bound, never a
measurement.

The lower bound is a perfectly fused program: every product, convolution and attention reads its
operands and writes its result once, and everything elementwise rides along in those kernels.  The
upper bound runs each operator by itself and writes attention's scores out.  Caches are not
modelled.
"""

from collections import Counter
from collections.abc import Iterable

from bench.count.rules import PRODUCT_CLASSES
from bench.count.trace import Op
from bench.results.counts import Operators

TRANSCENDENTAL = (
    "silu",
    "gelu",
    "exp",
    "sigmoid",
    "tanh",
    "_softmax",
    "softplus",
    "erf",
    "log",
    "mish",
    "sin",
    "cos",
)


def modelled_min(ops: Iterable[Op]) -> int:
    """Bytes of the perfectly fused program."""
    return sum(op.bytes_in + op.bytes_out for op in ops if op.kind in PRODUCT_CLASSES)


def modelled_max(ops: Iterable[Op]) -> int:
    """Bytes of the unfused program."""
    return sum(op.unfused_bytes for op in ops)


def elementwise(ops: Iterable[Op]) -> int:
    """Bytes of the operators that hold no product: what eager execution pays for norms, modulation,
    copies."""
    return sum(op.unfused_bytes for op in ops if op.kind not in PRODUCT_CLASSES)


def largest_operator(ops: Iterable[Op]) -> int:
    """Operands and result of the largest operator: with the weights, a floor under peak memory."""
    return max((op.bytes_in + op.bytes_out for op in ops), default=0)


def operators(ops: Iterable[Op], *, own: bool) -> Operators:
    """The operators in rows, equal ones together.  own: of our own modules, which leave no
    convolution to im2col."""
    rows: Counter[tuple] = Counter()
    for op in ops:
        if op.kind in PRODUCT_CLASSES:
            kind = "small_conv" if op.small and not own else op.kind
        else:
            kind = "activation" if op.name.startswith(TRANSCENDENTAL) else "memory"
        rows[(kind, *op.size, 2 * op.macs, op.bytes_in + op.bytes_out, op.bytes_out)] += 1
    return Operators.of(rows)
