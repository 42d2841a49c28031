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

import numpy as np

from bench.calibrate.cost.ceilings import Ceilings
from bench.calibrate.cost.parameters import NAMES, PARAMETERS, RATES
from bench.calibrate.cost.work import FRESH_BYTES, KINDS, Work

FILLS = {
    "linear": (("linear", "linear_half_size"),),
    "conv": (("conv", "conv_half_size"),),
    "attention": (("attention", "attention_half_length"), ("head", "attention_half_head")),
}
"""Kind of product -> its dimensions, each with its half-size."""


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
        self.at_peak = all_.flops / self._peak(ceilings)
        self.traffic = all_.bytes / ceilings.bandwidth(all_.bytes)
        self.activation = self.traffic
        if ceilings.activation_bytes_per_s:
            self.activation = all_.bytes / ceilings.activation_bytes_per_s
        self.fresh = np.zeros(len(kind))
        if ceilings.fresh_bytes_per_s:
            is_fresh = all_.bytes_out > FRESH_BYTES
            self.fresh = np.where(is_fresh, all_.bytes_out / ceilings.fresh_bytes_per_s, 0.0)
        self.inverse = _inverses(all_.size, ceilings)

    def _peak(self, ceilings: Ceilings) -> np.ndarray:
        """(n,) FLOP/s of the ceiling of each operator's kind."""
        peak = np.ones(len(self.calls))
        peak[self.is_["linear"]] = ceilings.gemm_flops_per_s
        peak[self.is_["attention"]] = ceilings.attention_flops_per_s
        peak[self.is_["conv"]] = ceilings.conv_flops_per_s
        peak[self.is_["small_conv"]] = ceilings.small_conv_flops_per_s or 1.0
        return peak

    def _fill(self, name: str, p: Mapping[str, float]) -> tuple[np.ndarray, float]:
        """1 + sum of half-size over size, of each operator of a kind and of the ceiling's probe."""
        of = self.is_[name]
        here, there = np.ones(of.sum()), 1.0
        for dimension, half in FILLS[name]:
            inverse, probe = self.inverse[dimension]
            here = here + p[half] * inverse[of]
            there = there + p[half] * probe
        return here, there

    def _share(self, p: Mapping[str, float]) -> np.ndarray:
        """(n,) share of its ceiling that each product reaches."""
        share = np.ones(len(self.calls))
        for name in FILLS:
            here, there = self._fill(name, p)
            share[self.is_[name]] = np.minimum(1.0, p[f"{name}_efficiency"] * there / here)
        share[self.is_["small_conv"]] = p["small_conv_efficiency"]
        return share

    def _share_slopes(self, p: Mapping[str, float], share: np.ndarray) -> dict[str, np.ndarray]:
        """Parameter -> (n,) d log share / d log parameter."""
        slopes = {"small_conv_efficiency": self._spread(self.is_["small_conv"], 1.0)}
        for name, dimensions in FILLS.items():
            of = self.is_[name]
            here, there = self._fill(name, p)
            below = np.where(share[of] < 1.0, 1.0, 0.0)  # at its ceiling nothing moves it
            slopes[f"{name}_efficiency"] = self._spread(of, below)
            for dimension, half in dimensions:
                inverse, probe = self.inverse[dimension]
                by_half = p[half] * (probe / there - inverse[of] / here)
                slopes[half] = self._spread(of, below * by_half)
        return slopes

    def _spread(self, of: np.ndarray, values: np.ndarray | float) -> np.ndarray:
        """(n,) the values where `of` is true, else 0."""
        out = np.zeros(len(of))
        out[of] = values
        return out

    def _each(self, p: Mapping[str, float]) -> np.ndarray:
        """(n,) seconds of one call of each operator, launch aside."""
        product = np.maximum(self.at_peak / self._share(p), self.traffic)
        activation = self.activation / p["activation_efficiency"]
        memory = self.traffic / p["memory_efficiency"]
        other = np.where(self.is_["activation"], activation, memory)
        return np.where(self.product, product, other) + self.fresh / p["fresh_efficiency"]

    def by_class(self, theta: np.ndarray) -> dict[str, np.ndarray]:
        """Seconds of each work, by class."""
        p = dict(zip(NAMES, theta, strict=True))
        each = self._each(p) * self.calls
        attention = self.is_["attention"]
        masks = {
            "linear": self.is_["linear"],
            "attention": attention & ~self.cross,
            "cross_attention": attention & self.cross,
            "conv": self.is_["conv"] | self.is_["small_conv"],
            "activation": self.is_["activation"],
            "memory": self.is_["memory"],
        }
        out = {name: self._sum(np.where(mask, each, 0.0)) for name, mask in masks.items()}
        return out | {
            "kernel": self._sum(self.calls) * p["kernel_s"],
            "fixed": self.stage_calls * p["call_s"],
        }

    def seconds(self, theta: np.ndarray) -> np.ndarray:
        """Seconds of each work."""
        p = dict(zip(NAMES, theta, strict=True))
        each = self._sum((self._each(p) + p["kernel_s"]) * self.calls)
        return each + self.stage_calls * p["call_s"]

    def slopes(self, theta: np.ndarray) -> np.ndarray:
        """(n, p): d log seconds / d log parameter of each work."""
        p = dict(zip(NAMES, theta, strict=True))
        share = self._share(p)
        at_rate = self.at_peak / share
        bound_by_rate = np.where(self.product & (at_rate > self.traffic), at_rate, 0.0)
        activation = np.where(self.product | ~self.is_["activation"], 0.0, self.activation)
        memory = np.where(self.product | self.is_["activation"], 0.0, self.traffic)
        each = {
            name: -bound_by_rate * slope for name, slope in self._share_slopes(p, share).items()
        }
        each["activation_efficiency"] = -activation / p["activation_efficiency"]
        each["memory_efficiency"] = -memory / p["memory_efficiency"]
        each["fresh_efficiency"] = -self.fresh / p["fresh_efficiency"]
        seconds = {name: self._sum(value * self.calls) for name, value in each.items()}
        seconds["kernel_s"] = self._sum(self.calls) * p["kernel_s"]
        seconds["call_s"] = self.stage_calls * p["call_s"]
        by_parameter = np.stack([seconds[name] for name in NAMES], axis=1)
        return by_parameter / self.seconds(theta)[:, None]

    def _sum(self, rows: np.ndarray) -> np.ndarray:
        return np.add.reduceat(rows, self.starts)


def _inverses(size: np.ndarray, ceilings: Ceilings) -> dict[str, tuple[np.ndarray, float]]:
    """Dimension -> 1 / size of each operator (n,), and of the ceiling's own probe; an unknown size
    is the probe's."""
    known = size > 0
    inverse = np.where(known, 1.0 / np.where(known, size, 1.0), np.nan)
    gemm, attention, conv = (
        _inverse(probed)
        for probed in (ceilings.gemm_size, ceilings.attention_size, ceilings.conv_size)
    )
    found = {
        "linear": (inverse.sum(axis=1), gemm.sum()),
        "attention": (inverse[:, :2].sum(axis=1), attention[:2].sum()),
        "head": (inverse[:, 2], attention[2]),
        "conv": (inverse[:, 1:].sum(axis=1), conv[1:].sum()),
    }
    return {
        name: (np.where(np.isnan(values), probe, values), float(probe))
        for name, (values, probe) in found.items()
    }


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
    values = _values(theta)
    return {
        name: float(value[0]) for name, value in Priced([work], ceilings).by_class(values).items()
    }


def share_by_parameter(
    works: Iterable[Work], theta: Mapping[str, float | None], ceilings: Ceilings
) -> dict[str, float]:
    """Parameter -> share of the seconds of all works that it scales: 0.4 where 1 % more of it
    changes them by 0.4 %."""
    priced, values = Priced(works, ceilings), _values(theta)
    seconds = priced.seconds(values)
    moved = np.abs(seconds @ priced.slopes(values)) / seconds.sum()
    return dict(zip(NAMES, map(float, moved), strict=True))


def _values(theta: Mapping[str, float | None]) -> np.ndarray:
    """In the order of NAMES; one that was not measured at its prior."""
    return np.array(
        [PARAMETERS[name].prior if theta[name] is None else theta[name] for name in NAMES]
    )
