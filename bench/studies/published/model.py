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

import numpy as np

from bench.core.specs.gpu import Gpu
from bench.studies.published.counts import Counted
from bench.studies.published.table import Row

HOPPER = ("h100-sxm", "h100-pcie", "h100-nvl", "h200", "h20")
LINEAR, ATTENTION, VAE, ELEMENTWISE, FAST, UNFUSED, OFFLOADED, STAGES = range(
    8
)  # columns of the features


@dataclass(frozen=True)
class Parameter:
    """One number of the model: where it starts, how far it may go, and what it is held at when it
    is not free."""

    name: str
    unit: str
    bounds: tuple[float, float]
    start: float
    held: float
    """Its value while it is not free."""
    possible: tuple[float, float]
    """Within which that value is thought to lie: intervals draw from it."""
    spread: float
    """Before the table is seen, a free one is thought to lie within this factor of its start (one
    standard deviation)."""
    why: str


SHARE, SECONDS, RATIO = "share of datasheet", "s", "ratio"  # units


def parameters_of(gpu: str) -> tuple[Parameter, ...]:
    """What is held, and why, for a kind of card."""
    linear, attention, vae = _rates(gpu in HOPPER)
    fixed = _seconds("fixed_s", 3.0)
    gain, unfused, fused = _ratios(gpu in HOPPER)
    return linear, attention, vae, fixed, gain, unfused, fused, _seconds("offload_s", 20.0)


def _rates(hopper: bool) -> tuple[Parameter, Parameter, Parameter]:
    return (
        Parameter(
            "linear_efficiency", SHARE, (0.02, 1.0), 0.55, 0.55, (0.4, 0.7), 1.6, "never held"
        ),
        Parameter(
            "attention_efficiency",
            SHARE,
            (0.02, 1.0),
            0.4,
            0.37 if hopper else 0.6,
            (0.3, 0.5) if hopper else (0.4, 0.75),
            1.6,
            "FlashAttention-2 reaches 35 % of an H100 (arXiv 2407.08608) and up to 73 % of an A100"
            " (arXiv 2307.08691)",
        ),
        Parameter(
            "vae_efficiency",
            SHARE,
            (0.005, 1.0),
            0.2,
            0.2,
            (0.1, 0.4),
            2.2,
            "CogVideoX 1.5's decoding: 52 s on an H20 (L0720's note) is 0.20 of the datasheet, 38 s"
            " on an L20 0.35",
        ),
    )


def _seconds(name: str, start: float) -> Parameter:
    """Seconds that a run takes beside its work."""
    why = "the table does not show one"
    return Parameter(name, SECONDS, (1e-3, 1e3), start, 0.0, (0.0, 0.0), 4.0, why)


def _ratios(hopper: bool) -> tuple[Parameter, Parameter, Parameter]:
    return (
        Parameter(
            "fast_attention_gain",
            RATIO,
            (1.0, 3.0),
            1.8,
            2.0 if hopper else 1.0,
            (1.7, 2.3) if hopper else (0.8, 1.0),
            1.25,
            "cuDNN over FA2: 1.7 to 2.3 on Hopper, 0.82 on an A100, 1.00 on an L40S (PR 48163 of"
            " transformers)",
        ),
        Parameter(
            "unfused_share",
            RATIO,
            (1e-3, 5.0),
            0.8,
            0.0,
            (0.0, 0.0),
            2.5,
            "elementwise traffic cannot be told from the linear rate",
        ),
        Parameter(
            "fused_share",
            RATIO,
            (0.02, 1.0),
            0.33,
            1 / 3,
            (0.1, 0.6),
            2.0,
            "assumed, from 0.1 to 0.6: three elementwise operators in a row become one",
        ),
    )


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
