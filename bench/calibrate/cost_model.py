"""Seconds of a stage from its counted operators, one by one.

    seconds = call_s + sum over operators of calls * (kernel_s + fresh + {

        products     max(flops / rate, bytes / bandwidth(bytes)),
                     rate = ceiling * min(1, efficiency * fill)
        activations  bytes / (activation_efficiency * activation ceiling)
        the rest     bytes / (memory_efficiency * bandwidth(bytes)) })

The physics.  A product keeps the multipliers busy in proportion to how well it fills them: a GEMM
by its rows, columns and depth, attention by its sequences and head size, a convolution by its
channels.  Each dimension d costs a share h / d of the time of the work itself (the edge of a tile,
the start of a loop), h being the half-size at which that share is all:

    fill = (1 + h / d of the ceiling's own probe) / (1 + h / d of this operator),  summed over
    dimensions

so that a rate is the measured ceiling's for the size that was probed, and never above it.  Norms,
modulation and copies run at memory speed, which depends on their size: small tensors live in a
cache (the measured ladder says how fast).  Functions such as GELU run at a rate of their own.  Each
operator costs its launch, each call of a stage its fixed overhead.

`fresh`: a CPU's allocator gives arrays over 32 MiB back to the system, so each new one is paged in
anew, at a measured rate (times fresh_efficiency, since what else lies in memory matters).
Convolutions that PyTorch leaves to its im2col kernel have a class of their own.

Efficiencies are of this device's measured ceilings, so they carry over to a card of the same kind
that is slower or faster.  memory_efficiency may pass 1: bytes are modelled, and caches and fusion
save some.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import get_args

import numpy as np

from bench.results.counts import OperatorKind, StageCount

INTERVAL = (5.0, 95.0)  # percentiles of every fitted interval: 90 %
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
FRESH_BYTES = (
    32 * 2**20
)  # glibc's DEFAULT_MMAP_THRESHOLD_MAX on 64 bit: larger blocks are always mapped anew


@dataclass(frozen=True)
class Meaning:
    """One parameter: its unit, its bounds, and what is believed before anything is measured."""

    unit: str
    low: float
    high: float
    prior: float
    spread: float
    """Standard deviation of the natural logarithm: 0.5 is a factor of 1.6, 1.5 one of 4.5."""
    needs: str
    """The class of work that must have been measured, else `at its prior`."""


SHARE = "share of ceiling"
PARAMETERS: dict[str, Meaning] = {
    "linear_efficiency": Meaning(SHARE, 0.01, 1.0, 0.8, 0.7, "linear"),
    "linear_half_size": Meaning("rows, columns or depth", 0.1, 4096.0, 24.0, 1.0, "linear"),
    "attention_efficiency": Meaning(SHARE, 0.01, 1.0, 0.8, 0.7, "attention"),
    "attention_half_length": Meaning("tokens", 0.1, 8192.0, 24.0, 1.0, "attention"),
    "attention_half_head": Meaning("head size", 0.1, 512.0, 16.0, 1.2, "attention"),
    "conv_efficiency": Meaning(SHARE, 0.01, 1.0, 0.8, 0.7, "conv"),
    "conv_half_size": Meaning("channels", 0.1, 1024.0, 8.0, 1.0, "conv"),
    "small_conv_efficiency": Meaning(SHARE, 0.01, 10.0, 1.0, 1.0, "small_conv"),
    "activation_efficiency": Meaning(SHARE, 0.02, 20.0, 1.0, 0.5, "activation"),
    "memory_efficiency": Meaning(SHARE, 0.02, 20.0, 0.5, 1.0, "memory"),
    "fresh_efficiency": Meaning(SHARE, 0.1, 10.0, 1.0, 0.4, "fresh"),
    "kernel_s": Meaning(
        "s", 1e-8, 1e-3, 5e-6, 1.2, "kernel"
    ),  # from a graph replay's 10 ns to a slow interpreter's 1 ms
    "call_s": Meaning("s", 1e-8, 1e-1, 2e-5, 1.2, "kernel"),
}
NAMES = tuple(PARAMETERS)
RATES = (
    "linear_efficiency",
    "attention_efficiency",
    "conv_efficiency",
    "memory_efficiency",
    "kernel_s",
)
"""Those without which nothing can be said; the rest have a prior that a few points need not
move."""
PRIOR = np.array([m.prior for m in PARAMETERS.values()])


@dataclass(frozen=True)
class Ceilings:
    """Measured rates of a device, for one dtype and attention backend."""

    gemm_flops_per_s: float
    attention_flops_per_s: float
    conv_flops_per_s: float
    copy_bytes_per_s: float
    """Bandwidth of copies far larger than any cache."""
    gemm_size: tuple[int, int, int] | None = None
    """m, n, k of the probe that reached it; None: of a large one."""
    attention_size: tuple[int, int, int] | None = None
    """Queries, keys, head size."""
    conv_size: tuple[int, int, int] | None = None
    """Positions, channels, channels x taps."""
    small_conv_flops_per_s: float | None = None
    """Rate of PyTorch's im2col kernel on a CPU; None on a device that has no such kernel."""
    activation_bytes_per_s: float | None = None
    """GELU; None: as fast as a copy."""
    fresh_bytes_per_s: float | None = None
    """Writing an array that was not mapped yet; None: the allocator keeps its memory, as CUDA's
    does."""
    ladder: tuple[tuple[float, float], ...] = ()
    """(bytes moved, bytes/s) of copies, small to large; empty: copy_bytes_per_s for all."""

    def bandwidth(self, moved: np.ndarray) -> np.ndarray:
        """Bytes/s of operators that move so many bytes, between the rungs in proportion
        (log-log)."""
        if not self.ladder:
            return np.full_like(moved, self.copy_bytes_per_s, dtype=float)
        sizes, rates = np.log(np.array(self.ladder)).T
        return np.exp(np.interp(np.log(np.maximum(moved, 1.0)), sizes, rates))


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


class Priced:
    """Many works on one device, laid out so that any parameters give all their seconds at once."""

    def __init__(self, works: Iterable[Work], ceilings: Ceilings):
        works = list(works)
        self.starts = np.cumsum([0, *(len(w.kind) for w in works)])[:-1]
        self.stage_calls = np.array([w.stage_calls for w in works])
        all_ = sum(works[1:], works[0])
        kind = all_.kind
        if ceilings.small_conv_flops_per_s is None:  # only a CPU has the slow kernel
            kind = np.where(kind == KINDS.index("small_conv"), KINDS.index("conv"), kind)
        self.calls, self.cross = all_.calls, all_.size[:, 0] != all_.size[:, 1]
        self.is_ = {name: kind == i for i, name in enumerate(KINDS)}
        self.is_["linear"] = self.is_["linear"] | self.is_["other"]
        self.product = all_.flops > 0
        peak = np.ones(len(kind))
        for name, rate in (
            ("linear", ceilings.gemm_flops_per_s),
            ("attention", ceilings.attention_flops_per_s),
            ("conv", ceilings.conv_flops_per_s),
            ("small_conv", ceilings.small_conv_flops_per_s or 1.0),
        ):
            peak[self.is_[name]] = rate
        self.at_peak = all_.flops / peak
        self.traffic = all_.bytes / ceilings.bandwidth(all_.bytes)
        self.activation = (
            all_.bytes / ceilings.activation_bytes_per_s
            if ceilings.activation_bytes_per_s
            else self.traffic
        )
        self.fresh = (
            np.where(all_.bytes_out > FRESH_BYTES, all_.bytes_out / ceilings.fresh_bytes_per_s, 0.0)
            if ceilings.fresh_bytes_per_s
            else np.zeros(len(kind))
        )
        with np.errstate(divide="ignore"):
            inverse = np.where(all_.size > 0, 1.0 / np.where(all_.size > 0, all_.size, 1.0), np.nan)
        self.inverse = {
            "linear": (inverse.sum(axis=1), _inverse(ceilings.gemm_size).sum()),
            "attention": (inverse[:, :2].sum(axis=1), _inverse(ceilings.attention_size)[:2].sum()),
            "head": (inverse[:, 2], _inverse(ceilings.attention_size)[2]),
            "conv": (inverse[:, 1:].sum(axis=1), _inverse(ceilings.conv_size)[1:].sum()),
        }
        for values, probe in self.inverse.values():  # of an unknown size: as the probe
            values[np.isnan(values)] = probe

    def by_class(self, theta: np.ndarray) -> dict[str, np.ndarray]:
        """Seconds of each work, by class."""
        p = dict(zip(NAMES, theta, strict=True))
        share = np.ones(len(self.calls))
        for name, terms in (
            ("linear", (("linear", "linear_half_size"),)),
            ("conv", (("conv", "conv_half_size"),)),
            (
                "attention",
                (("attention", "attention_half_length"), ("head", "attention_half_head")),
            ),
        ):
            of = self.is_[name]
            here, there = 1.0, 1.0
            for dimension, half in terms:
                inverse, probe = self.inverse[dimension]
                here, there = here + p[half] * inverse[of], there + p[half] * probe
            share[of] = np.minimum(1.0, p[f"{name}_efficiency"] * there / here)
        share[self.is_["small_conv"]] = p["small_conv_efficiency"]
        each = (
            np.where(
                self.product,
                np.maximum(self.at_peak / share, self.traffic),
                np.where(
                    self.is_["activation"],
                    self.activation / p["activation_efficiency"],
                    self.traffic / p["memory_efficiency"],
                ),
            )
            + self.fresh / p["fresh_efficiency"]
        )
        cross = self.is_["attention"] & self.cross
        masks = {
            "linear": self.is_["linear"],
            "attention": self.is_["attention"] & ~cross,
            "cross_attention": cross,
            "conv": self.is_["conv"] | self.is_["small_conv"],
            "activation": self.is_["activation"],
            "memory": self.is_["memory"],
        }
        out = {
            name: self._sum(np.where(mask, each, 0.0) * self.calls) for name, mask in masks.items()
        }
        return out | {
            "kernel": self._sum(self.calls) * p["kernel_s"],
            "fixed": self.stage_calls * p["call_s"],
        }

    def seconds(self, theta: np.ndarray) -> np.ndarray:
        """Seconds of each work."""
        return sum(self.by_class(theta).values())

    def _sum(self, rows: np.ndarray) -> np.ndarray:
        return np.add.reduceat(rows, self.starts)


def _inverse(size: tuple[int, int, int] | None) -> np.ndarray:
    return np.zeros(3) if size is None else 1.0 / np.array(size, dtype=float)


def seconds_by_class(
    work: Work, theta: Mapping[str, float | None], ceilings: Ceilings
) -> dict[str, float]:
    """Seconds of each class.  Raises ValueError where a class is needed that no measured point
    had."""
    for name in RATES:
        if theta[name] is None and PARAMETERS[name].needs in work.classes:
            raise ValueError(PARAMETERS[name].needs)
    values = np.array(
        [PARAMETERS[name].prior if theta[name] is None else theta[name] for name in NAMES]
    )
    return {
        name: float(value[0]) for name, value in Priced([work], ceilings).by_class(values).items()
    }
