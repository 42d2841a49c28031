"""One observation: seconds of some work, how it was run, and who says so.

A row of a published table holds a whole video; a stage of an own record holds a part of one.  Both
observe the same parameters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bench.core.load import load
from bench.core.specs.gpu import Gpu
from bench.results.base import Positive, Strict

TERMS = ("linear", "attention", "vae", "elementwise", "fixed", "offload")
Kind = Literal["video", "stage"]
GRADES = {"A": 1.0, "A-": 1.0, "B+": 1.0, "B": 1.3, "B-": 2.0, "C": 3.0}
"""By how much an observation's noise is larger than that of a row whose conditions are all known: B
has one or two of them inferred, C more.  This project's choice."""
UNGRADED = 1.3
GUESSED = 1.3
"""The same, once more, where a row's note says that a condition is from memory or assumed."""
POWER_AT = 700 / 989.4  # W a TFLOP/s of an H100 SXM: the power effects are 0 there
WIDTH_AT = 28e9  # FLOPs a token of a 14 B model: the width effect is 0 there


class Observation(Strict):
    """Work, conditions and seconds."""

    id: str
    kind: Kind = "video"
    gpu: str
    """A name in configs/gpus."""
    model: str
    """A name in configs/models."""
    named: str = ""
    """The source's own name of the model."""
    source: str
    grade: str = ""
    guessed: bool = False
    frames: int = 0
    height: int = 0
    width: int = 0
    tokens: int = 0
    """Of one sample's latents."""
    forwards: float = 0.0
    """Of the denoiser, in all."""
    seconds: Positive
    linear_flops: float
    """Of all forwards and the text encoders; convolutions of the denoiser are among them."""
    attention_flops: float
    vae_flops: float
    elementwise_bytes: float
    flops_per_token: Positive
    """Linear FLOPs of one forward over its tokens: about twice the parameters."""
    stages: bool
    """Does it hold more than a loop of steps: text encoding, start, writing?"""
    fast_attention: bool
    """FlashAttention-3 or cuDNN, where the source says so."""
    unfused: bool
    """Nothing was compiled, where the source says so."""
    offloaded: bool
    fp8: bool = False

    @property
    def size(self) -> str:
        """For people, and for leaving a size out."""
        return f"{self.width}x{self.height}, {self.frames} frames"

    @property
    def noise(self) -> float:
        """Its standard deviation over that of a row of grade A."""
        guessed = GUESSED if self.guessed else 1.0
        return GRADES.get(self.grade, UNGRADED) * guessed


@dataclass(frozen=True)
class Columns:
    """Observations as arrays: what the cost model reads."""

    at_datasheet: np.ndarray
    """(n, 6) logarithm of the seconds of each of TERMS at the card's datasheet; of `fixed` and
    `offload` 0.  -inf where there is no such work."""
    fast: np.ndarray
    """(n,) 0 or 1, as the four that follow."""
    unfused: np.ndarray
    fp8: np.ndarray
    power: np.ndarray
    """(n,) log of watts a TFLOP/s, over that of an H100 SXM."""
    width: np.ndarray
    """(n,) log of FLOPs a token, over those of a 14 B model."""
    levels: dict[str, np.ndarray]
    """architecture, card, model, source -> (n,) names."""
    noise: np.ndarray
    """(n,) see Observation.noise."""

    def __len__(self) -> int:
        return len(self.noise)

    def covariate(self, name: str) -> np.ndarray:
        """(n,) by which an effect of that name is multiplied."""
        fused = 1.0 - self.unfused
        return {
            "all": np.ones(len(self)),
            "fused": fused,
            "fast": self.fast,
            "power": self.power,
            "power of fast": self.power * self.fast,
            "width": self.width,
            "fp8": self.fp8,
            "fp8 fused": self.fp8 * fused,
        }[name]


def columns(observations: Sequence[Observation], cards: dict[str, Gpu] | None = None) -> Columns:
    """cards: by name, for those that are no preset.  Raises KeyError for a card without a 16-bit
    rate, bandwidth or power in its datasheet: `can_be_observed` says which ones have them."""
    known = cards or {}
    gpus = [known.get(o.gpu) or load(Gpu, o.gpu) for o in observations]
    peak = np.array([gpu.peak_flops_per_s["bf16"] for gpu in gpus])
    bandwidth = np.array([gpu.bandwidth_bytes_per_s for gpu in gpus])
    watts = np.array([gpu.watts_per_tflops for gpu in gpus])
    work = np.array(
        [
            [
                o.linear_flops / peak[i],
                o.attention_flops / peak[i],
                o.vae_flops / peak[i],
                o.elementwise_bytes / bandwidth[i],
                float(o.stages),
                float(o.offloaded),
            ]
            for i, o in enumerate(observations)
        ]
    )
    with np.errstate(divide="ignore"):
        at_datasheet = np.log(work)
    return Columns(
        at_datasheet=at_datasheet,
        fast=_flags(o.fast_attention for o in observations),
        unfused=_flags(o.unfused for o in observations),
        fp8=_flags(o.fp8 for o in observations),
        power=np.log(watts / POWER_AT),
        width=np.log([o.flops_per_token / WIDTH_AT for o in observations]),
        levels={
            "architecture": np.array([gpu.architecture or "unknown" for gpu in gpus]),
            "card": np.array([o.gpu for o in observations]),
            "model": np.array([o.model for o in observations]),
            "source": np.array([o.source for o in observations]),
        },
        noise=np.array([o.noise for o in observations]),
    )


def can_be_observed(gpu: Gpu) -> str | None:
    """Why the model cannot say anything of a card; None where it can."""
    if "bf16" not in gpu.peak_flops_per_s:
        return "no bf16 rate in its datasheet"
    if gpu.bandwidth_bytes_per_s is None or gpu.tdp_w is None:
        return "no bandwidth or no power in its datasheet"
    return None


def _flags(values) -> np.ndarray:
    return np.array([float(value) for value in values])
