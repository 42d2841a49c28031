"""Seconds of a video on a mesh, from its seconds on one card.

    T = D / k (1 + loss log2 k) + serial S + forwards / cfg (bytes / (share link) + latency calls)

D: denoising on one card; k: ranks that share it; S: text encoders, start and VAE, which stay serial
(a spread VAE is shared).  Gathered weights are paid for by the share that nothing hides.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log2

import numpy as np

from bench.calibrate.scaling.traffic import Forward, traffic_of
from bench.core.specs.gpu import Link
from models.parallel.spec import Parallel

NAMES = ("nvlink", "pcie", "latency_s", "serial", "exposed", "loss")


@dataclass(frozen=True, kw_only=True)
class OneCard:
    """A video on one card: seconds of its parts, and one forward."""

    denoise_s: float
    vae_s: float
    other_s: float
    forwards: float
    guided: bool
    """Two forwards a step, which cfg may share."""
    forward: Forward

    @property
    def seconds(self) -> float:
        return self.denoise_s + self.vae_s + self.other_s


@dataclass(frozen=True)
class Parts:
    """Seconds of one video on a mesh."""

    denoise_s: float
    communication_s: float
    serial_s: float

    @property
    def seconds(self) -> float:
        return self.denoise_s + self.communication_s + self.serial_s


def parts_on_one(one: OneCard) -> Parts:
    """A video on one card."""
    return Parts(one.denoise_s, 0.0, one.vae_s + one.other_s)


def parts_on(one: OneCard, parallel: Parallel, link: Link, values: Sequence[float]) -> Parts:
    """values: of NAMES.  One card gives the seconds of one card."""
    if parallel.of_one_sample == 1:
        return parts_on_one(one)
    of = dict(zip(NAMES, values, strict=True))
    sharing = parallel.cfg * parallel.sequence * parallel.tensor
    traffic = traffic_of(one.forward, parallel)
    rate = of[link.kind] * link.bytes_per_s
    forward_s = traffic.bytes_sent / rate + of["latency_s"] * traffic.calls
    forward_s += of["exposed"] * traffic.weight_bytes / rate
    serial_s = one.other_s + one.vae_s / parallel.vae
    return Parts(
        denoise_s=one.denoise_s / sharing * (1 + of["loss"] * log2(sharing)),
        communication_s=forward_s * one.forwards / parallel.cfg,
        serial_s=of["serial"] * serial_s,
    )


@dataclass(frozen=True, kw_only=True)
class Observed:
    """A published row on several cards."""

    id: str
    gpu: str
    model: str
    source: str
    size: str
    parallel: Parallel
    link: Link
    one: OneCard
    """By the source's own row on one card where it has one, else by what is published."""
    own_base: bool
    """Is `one` the source's own row?"""
    seconds: float
    noise: float


def log_ratios(rows: Sequence[Observed], values: np.ndarray) -> np.ndarray:
    """(n,) log(predicted / measured)."""
    predicted = [parts_on(o.one, o.parallel, o.link, values).seconds for o in rows]
    return np.log(np.array(predicted) / [o.seconds for o in rows])
