"""Seconds of a stage from its counted work.

    seconds = linear_flops    / (linear_efficiency    * GEMM ceiling)
            + attention_flops / (attention_efficiency * attention ceiling)
            + conv_flops      / (conv_efficiency      * conv3d ceiling)
            + elementwise_bytes / (memory_efficiency  * copy ceiling)
            + kernels * kernel_s

The physics: products run at a rate of their own class, since a softmax between two products and a gathered 3 x 3 x 3
window keep the multipliers less busy than one large GEMM does; norms, modulation and copies run at memory speed; each
operator costs its launch.  Efficiencies are of this device's measured ceilings, so they carry over to a card of the same
kind that is slower or faster.  memory_efficiency may pass 1: its bytes are modelled, and caches and fusion save some.
Products of another sort (`other_flops`) count as linear.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bench.core.records import StageCount

INTERVAL = (5.0, 95.0)    # percentiles of every fitted interval: 90 %
CLASSES = ("linear", "attention", "conv", "memory", "kernel")
PARAMETERS = ("linear_efficiency", "attention_efficiency", "conv_efficiency", "memory_efficiency", "kernel_s")
UNITS = dict.fromkeys(PARAMETERS[:4], "share of ceiling") | {"kernel_s": "s"}
BOUNDS = {
    "linear_efficiency": (0.01, 1.0), "attention_efficiency": (0.01, 1.0), "conv_efficiency": (0.01, 1.0),
    "memory_efficiency": (0.02, 20.0),
    "kernel_s": (1e-8, 1e-3),      # from a graph replay's 10 ns to a slow interpreter's millisecond
}


@dataclass(frozen=True)
class Ceilings:
    """Measured rates of a device, for one dtype and attention backend.  None where not measured."""

    gemm_flops_per_s: float
    attention_flops_per_s: float
    conv_flops_per_s: float
    copy_bytes_per_s: float


def features(count: StageCount, ceilings: Ceilings) -> np.ndarray:
    """Seconds of each class at its ceiling, and the number of kernels.  -> (5,) in the order of CLASSES."""
    return np.array([
        (count.linear_flops + count.other_flops) / ceilings.gemm_flops_per_s,
        count.attention_flops / ceilings.attention_flops_per_s,
        count.conv_flops / ceilings.conv_flops_per_s,
        count.bytes_elementwise / ceilings.copy_bytes_per_s,
        count.kernels,
    ])


def seconds_by_class(x: np.ndarray, parameters: Mapping[str, float | None]) -> dict[str, float]:
    """Seconds of each class.  Raises ValueError where a class is needed that no measured point had."""
    out = {}
    for name, parameter, work in zip(CLASSES, PARAMETERS, x, strict=True):
        value = parameters[parameter]
        if value is None:
            if work:
                raise ValueError(name)
            out[name] = 0.0
        else:
            out[name] = float(work * value if name == "kernel" else work / value)
    return out


def seconds(x: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """Vectorised over stages (n, 5) for parameters (5,): efficiencies divide, kernel_s multiplies.  -> (n,)."""
    return x[:, :4] @ (1.0 / theta[:4]) + x[:, 4] * theta[4]
