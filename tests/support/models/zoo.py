"""One forward of a public model on meta, and its FLOPs."""

from bench.count.trace import Trace


def flops(traced: Trace) -> int:
    return sum(traced.flops_by_class().values())
