"""The cost of a whole video on one kind of card, in a few rates.

    seconds = linear FLOPs / (linear_efficiency x peak) + attention FLOPs / (attention_efficiency x
    gain x peak)
            + VAE FLOPs / (vae_efficiency x peak) + elementwise bytes x unfused_share x kept /
            bandwidth + fixed_s + offload_s (rows that say that weights are offloaded)

peak, bandwidth: the datasheet's, so efficiencies are shares of it.  gain: fast_attention_gain for
rows that say FlashAttention-3 or cuDNN, else 1.  kept: 1 for rows that say that nothing was
compiled, else fused_share.  A rate that is nan is tied to the linear one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

import numpy as np

from bench.calibrate.fitting.parameter import Parameter
from bench.calibrate.published.counts import Counted
from bench.calibrate.published.table import Row
from bench.core.specs.gpu import Gpu

HOPPER = ("h100-sxm", "h100-pcie", "h100-nvl", "h200", "h20")
LINEAR, ATTENTION, VAE, ELEMENTWISE, FAST, UNFUSED, OFFLOADED, STAGES = range(
    8
)  # columns of the features


@dataclass(frozen=True, kw_only=True)
class Rate(Parameter):
    """One number of the model of whole videos, and what it is held at while it is not free."""

    name: str
    held: float
    """Its value while it is not free."""
    possible: tuple[float, float]
    """Within which that value is thought to lie: intervals draw from it."""
    why: str


SHARE, SECONDS, RATIO = "share of datasheet", "s", "ratio"  # units


def parameters_of(gpu: str) -> tuple[Rate, ...]:
    """What is held, and why, for a kind of card."""
    linear, attention, vae = _rates(gpu in HOPPER)
    fixed = _seconds("fixed_s", 3.0)
    gain, unfused, fused = _ratios(gpu in HOPPER)
    return linear, attention, vae, fixed, gain, unfused, fused, _seconds("offload_s", 20.0)


def _rates(hopper: bool) -> tuple[Rate, Rate, Rate]:
    linear = Rate(
        name="linear_efficiency",
        unit=SHARE,
        low=0.02,
        high=1.0,
        prior=0.55,
        spread=log(1.6),
        held=0.55,
        possible=(0.4, 0.7),
        why="never held",
    )
    attention = Rate(
        name="attention_efficiency",
        unit=SHARE,
        low=0.02,
        high=1.0,
        prior=0.4,
        spread=log(1.6),
        held=0.37 if hopper else 0.6,
        possible=(0.3, 0.5) if hopper else (0.4, 0.75),
        why="FlashAttention-2 reaches 35 % of an H100 (arXiv 2407.08608) and up to 73 % of an A100"
        " (arXiv 2307.08691)",
    )
    vae = Rate(
        name="vae_efficiency",
        unit=SHARE,
        low=0.005,
        high=1.0,
        prior=0.2,
        spread=log(2.2),
        held=0.2,
        possible=(0.1, 0.4),
        why="CogVideoX 1.5's decoding: 52 s on an H20 (L0720's note) is 0.20 of the datasheet, 38 s"
        " on an L20 0.35",
    )
    return linear, attention, vae


def _seconds(name: str, prior: float) -> Rate:
    """Seconds that a run takes beside its work."""
    return Rate(
        name=name,
        unit=SECONDS,
        low=1e-3,
        high=1e3,
        prior=prior,
        spread=log(4.0),
        held=0.0,
        possible=(0.0, 0.0),
        why="the table does not show one",
    )


def _ratios(hopper: bool) -> tuple[Rate, Rate, Rate]:
    gain = Rate(
        name="fast_attention_gain",
        unit=RATIO,
        low=1.0,
        high=3.0,
        prior=1.8,
        spread=log(1.25),
        held=2.0 if hopper else 1.0,
        possible=(1.7, 2.3) if hopper else (0.8, 1.0),
        why="cuDNN over FA2: 1.7 to 2.3 on Hopper, 0.82 on an A100, 1.00 on an L40S (PR 48163 of"
        " transformers)",
    )
    unfused = Rate(
        name="unfused_share",
        unit=RATIO,
        low=1e-3,
        high=5.0,
        prior=0.8,
        spread=log(2.5),
        held=0.0,
        possible=(0.0, 0.0),
        why="elementwise traffic cannot be told from the linear rate",
    )
    fused = Rate(
        name="fused_share",
        unit=RATIO,
        low=0.02,
        high=1.0,
        prior=0.33,
        spread=log(2.0),
        held=1 / 3,
        possible=(0.1, 0.6),
        why="assumed, from 0.1 to 0.6: three elementwise operators in a row become one",
    )
    return gain, unfused, fused


class PublishedModel:
    """The cost model of one kind of card."""

    def __init__(self, gpu: Gpu):
        self.gpu = gpu
        self.parameters = parameters_of(gpu.name)
        self.names = [p.name for p in self.parameters]
        self.peak = gpu.peak_flops_per_s.get("bf16")
        self.bandwidth = gpu.bandwidth_bytes_per_s
        self.held = np.array([p.held for p in self.parameters])
        self.one_rate, self.one_product_rate = self.held.copy(), self.held.copy()
        self.one_rate[[1, 2]] = self.one_product_rate[1] = np.nan
        self.one_rate[self.names.index("fast_attention_gain")] = 1.0

    def features(self, row: Row, counted: Counted) -> np.ndarray:
        """(8,): seconds at the datasheet of linear, attention, VAE and elementwise work; then what
        the row says."""
        work = counted.forward * row.forwards + counted.text
        return np.array(
            [
                (work.linear_flops + work.conv_flops) / self.peak,
                work.attention_flops / self.peak,
                counted.vae_flops / self.peak,
                work.elementwise_bytes / self.bandwidth if self.bandwidth else 0.0,
                row.fast_attention,
                row.unfused,
                row.offloaded,
                row.scope.per == "video" and row.scope.text,
            ]
        )

    def terms(self, x: np.ndarray, theta: np.ndarray) -> np.ndarray:
        """x (n, 8), theta (8,) -> (n, 8) seconds, each under the parameter that scales it (gain and
        fused share: others')."""
        linear, attention, vae, fixed, gain, unfused, fused, offload = theta
        attention, vae = (linear if np.isnan(rate) else rate for rate in (attention, vae))
        out = np.zeros((len(x), len(theta)))
        out[:, 0] = x[:, LINEAR] / linear
        out[:, 1] = x[:, ATTENTION] / (attention * np.where(x[:, FAST] > 0, gain, 1.0))
        out[:, 2] = x[:, VAE] / vae
        out[:, 3] = fixed * x[:, STAGES]
        out[:, 5] = x[:, ELEMENTWISE] * unfused * np.where(x[:, UNFUSED] > 0, 1.0, fused)
        out[:, 7] = offload * x[:, OFFLOADED]
        return out

    def seconds(self, x: np.ndarray, theta: np.ndarray) -> np.ndarray:
        """x (n, 8), theta (8,) -> (n,)."""
        return self.terms(x, theta).sum(axis=1)

    def slopes(self, x: np.ndarray, theta: np.ndarray, free: Sequence[int]) -> np.ndarray:
        """(n, len(free)): d log seconds / d log parameter."""
        terms = self.terms(x, theta)
        up = terms.copy()  # seconds, a share, a gain: more is more
        up[:, :3] *= -1  # a rate: more is less
        up[:, 0] += np.where(np.isnan(theta[1:3]), up[:, 1:3], 0.0).sum(axis=1)
        up[:, 4] = up[:, 1] * (x[:, FAST] > 0)
        up[:, 6] = terms[:, 5] * (x[:, UNFUSED] == 0)
        return up[:, list(free)] / terms.sum(axis=1, keepdims=True)

    def shown_by(self, x: np.ndarray, free: Sequence[int], held: np.ndarray) -> list[int]:
        """Parameters that the rows could tell: not those of work that no row has, of a flag that
        all share, or tied; nor of VAE or bytes that grow as the linear layers do, as in a sweep of
        one model's sizes: they belong to the linear rate."""
        differs = {"fast_attention_gain": FAST, "fused_share": UNFUSED, "offload_s": OFFLOADED}
        needs = {
            "attention_efficiency": ATTENTION,
            "vae_efficiency": VAE,
            "fixed_s": STAGES,
            "unfused_share": ELEMENTWISE,
        }
        shown = []
        for i, name in enumerate(self.names):
            column = x[:, differs[name]] if name in differs else None
            if not (
                i in free
                or np.isnan(held[i])
                or (column is not None and column.min() == column.max())
                or (name in needs and not x[:, needs[name]].any())
                or (name == "vae_efficiency" and _in_proportion(x[:, VAE], x[:, LINEAR]))
                or (
                    name == "unfused_share"
                    and x[:, UNFUSED].min() == x[:, UNFUSED].max()
                    and _in_proportion(x[:, ELEMENTWISE], x[:, LINEAR])
                )
                or (name == "fused_share" and self.names.index("unfused_share") not in free)
            ):
                shown.append(i)
        return shown


def _in_proportion(work: np.ndarray, other: np.ndarray) -> bool:
    """Within 5 %: work that cannot be told from the other."""
    ratio = np.divide(work, other, out=np.zeros_like(work), where=other > 0)
    return bool(ratio.max() <= 1.05 * ratio.min())
