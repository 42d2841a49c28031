"""The operators of a stage, as the cost model prices them."""

from dataclasses import dataclass, fields
from typing import get_args

import numpy as np

from bench.results.counts import OperatorKind, StageCount

CLASSES = (
    "linear",
    "attention",
    "cross_attention",
    "conv",
    "activation",
    "memory",
    "kernel",
    "fixed",
)
KINDS = get_args(OperatorKind)
# glibc's DEFAULT_MMAP_THRESHOLD_MAX on 64 bit: larger blocks are always mapped anew
FRESH_BYTES = 32 * 2**20


@dataclass(frozen=True)
class Work:
    """Operators of one or several stages; adds and scales, so that a video is steps * step + decode
    + text."""

    kind: np.ndarray
    """(n,) index into KINDS."""
    size: np.ndarray
    """(n, 3) m, n, k; 0 where there is no product or its size is not known."""
    flops: np.ndarray
    bytes: np.ndarray
    bytes_out: np.ndarray
    calls: np.ndarray
    stage_calls: float = 1.0

    @classmethod
    def of(cls, count: StageCount) -> "Work":
        """From a stage's operators; where a record has none, from its sums, as one large operator
        of each kind."""
        if count.operators is not None:
            o = count.operators
            return cls(
                np.array([KINDS.index(kind) for kind in o.kind], dtype=int),
                np.array([o.m, o.n, o.k], dtype=float).T.reshape(-1, 3),
                *(
                    np.array(column, dtype=float)
                    for column in (o.flops, o.bytes, o.bytes_out, o.calls)
                ),
            )
        sums = [
            (kind, getattr(count, f"{kind}_flops"), 0)
            for kind in ("linear", "attention", "conv", "other")
        ]
        rows = [row for row in [*sums, ("memory", 0, count.bytes_elementwise)] if row[1] or row[2]]
        rows.append(("memory", 0, 0))  # the launches
        calls = np.ones(len(rows))
        calls[-1] = max(count.kernels - len(rows) + 1, 0)
        return cls(
            np.array([KINDS.index(kind) for kind, _, _ in rows]),
            np.zeros((len(rows), 3)),
            np.array([f for _, f, _ in rows], dtype=float),
            np.array([b for _, _, b in rows], dtype=float),
            np.zeros(len(rows)),
            calls,
        )

    def __mul__(self, times: float) -> "Work":
        return Work(
            self.kind,
            self.size,
            self.flops,
            self.bytes,
            self.bytes_out,
            self.calls * times,
            self.stage_calls * times,
        )

    def __add__(self, other: "Work") -> "Work":
        arrays = [
            np.concatenate([getattr(self, f.name), getattr(other, f.name)])
            for f in fields(self)[:-1]
        ]
        return Work(*arrays, stage_calls=self.stage_calls + other.stage_calls)

    @property
    def classes(self) -> frozenset[str]:
        """Its classes of work, with small_conv and fresh; `other` products count as linear."""
        held = {
            KINDS[i].replace("other", "linear")
            for i in np.unique(self.kind[(self.flops > 0) | (self.bytes > 0)])
        }
        fresh = {"fresh"} if (self.bytes_out > FRESH_BYTES).any() else set()
        return frozenset(held | fresh | ({"kernel"} if self.calls.sum() else set()))
