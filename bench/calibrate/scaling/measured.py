"""A step on several ranks, from what one rank and the links were measured to do here.

    T = T1 c_k / c_1 + sum over messages of calls x seconds(collective, ranks, bytes)

T1: the step on one rank, measured where it was; c_1, c_k: its operators and those of one rank of
the mesh, priced by the fit of one rank, the latter at the rates that a rank keeps while the others
are at work.  Collectives wait for one another here, so that none is hidden behind compute.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from bench.calibrate.cost.ceilings import Ceilings
from bench.calibrate.cost.seconds import Priced
from bench.calibrate.cost.work import Work
from bench.calibrate.fitting.accuracy import INTERVAL
from bench.core.quantity import Quantity
from bench.results.counts import StageCount
from bench.results.records import CeilingsRecord
from bench.results.scaling import Message, StepOnRanks
from models.parallel.spec import AXES, Parallel

CONTENDED = {
    "gemm_flops_per_s": "gemm",
    "attention_flops_per_s": "attention",
    "conv_flops_per_s": "conv3d",
    "small_conv_flops_per_s": "small_conv3d",
    "activation_bytes_per_s": "activation",
    "fresh_bytes_per_s": "fresh_write",
}
"""A ceiling -> the kind of probe that says what a rank keeps of it."""


class Links:
    """What the ranks of one world reach together.  Provenance: measured."""

    def __init__(self, record: CeilingsRecord):
        assert record.ranks is not None
        self.ranks, self.per_node = record.ranks, record.ranks // record.nodes
        self._curves: dict[tuple[str, int, bool], list[tuple[float, float]]] = defaultdict(list)
        at_once: dict[tuple[str, int], dict[int, float]] = defaultdict(dict)
        for probe in record.probes:
            if "ranks" in probe.shape:
                across = bool(probe.shape.get("across"))
                curve = self._curves[probe.kind, probe.shape["ranks"], across]
                curve.append((float(probe.bytes_moved), probe.timing.median_s))
            elif "at_once" in probe.shape:
                key = probe.kind, probe.shape.get("bytes", 0)
                at_once[key][probe.shape["at_once"]] = probe.rate
        for curve in self._curves.values():
            curve.sort()
        self._kept = {
            key: rates[self.ranks] / rates[1]
            for key, rates in at_once.items()
            if {1, self.ranks} <= rates.keys()
        }
        """(kind of probe, bytes) -> the share of its rate that a rank keeps among busy ones."""

    def across(self, axis: str, parallel: Parallel) -> bool:
        """Do the groups of an axis go over several nodes?  Nodes are filled one after another, the
        innermost axis first; whatever is no axis is of all ranks."""
        inner = self.ranks
        if axis in AXES:
            inner = prod(list(parallel.degrees.values())[AXES.index(axis) :])
        return inner > self.per_node

    def seconds(
        self, collective: str, ranks: int, bytes_sent: float, across: bool = False
    ) -> float:
        """Of one call: between the measured sizes in proportion (log-log), under the smallest as
        that, over the largest at its bandwidth.  Raises ValueError where none was measured."""
        curve = self._curves.get((collective, ranks, across))
        if not curve:
            where = " across nodes" if across else ""
            raise ValueError(f"{collective} of {ranks} ranks{where} was not measured")
        sizes, seconds = np.array(curve).T
        if bytes_sent > sizes[-1]:
            return float(seconds[-1] * bytes_sent / sizes[-1])
        at = np.log(max(bytes_sent, 1.0))
        return float(np.exp(np.interp(at, np.log(sizes), np.log(seconds))))

    def kept(self, kind: str) -> float:
        """The share that a rank keeps of the rate of a kind of probe; 1 where none was measured."""
        shares = [share for (name, _), share in self._kept.items() if name == kind]
        return float(np.exp(np.mean(np.log(shares)))) if shares else 1.0

    def kept_of_copies(self, moved: float) -> float:
        """The same, of copies that move so many bytes."""
        shares = sorted((2.0 * n, s) for (name, n), s in self._kept.items() if name == "copy")
        if not shares:
            return 1.0
        sizes, kept = np.array(shares).T
        return float(np.interp(np.log(max(moved, 1.0)), np.log(sizes), kept))

    def ceilings(self, alone: Ceilings) -> Ceilings:
        """What one rank reaches while the others are at work."""
        shared = {
            name: getattr(alone, name) * self.kept(kind)
            for name, kind in CONTENDED.items()
            if getattr(alone, name) is not None
        }
        ladder = tuple((moved, rate * self.kept_of_copies(moved)) for moved, rate in alone.ladder)
        largest = max((moved for moved, _ in alone.ladder), default=float("inf"))
        copies = alone.copy_bytes_per_s * self.kept_of_copies(largest)
        return replace(alone, **shared, copy_bytes_per_s=copies, ladder=ladder)


@dataclass(frozen=True)
class OneRank:
    """The fit of what one rank measured."""

    ceilings: Ceilings
    theta: np.ndarray
    """(p,) parameters of the cost model."""
    draws: np.ndarray
    """(n, p) bootstrap draws of them."""
    stages: int
    """Measured stages that it rests on."""

    def seconds(self, work: Work, ceilings: Ceilings) -> np.ndarray:
        """(1 + n,) of the parameters, then of each draw."""
        priced = Priced([work], ceilings)
        return np.array([priced.seconds(p)[0] for p in [self.theta, *self.draws]])


def step_on_ranks(
    alone: StageCount,
    share: StageCount,
    messages: Sequence[Message],
    parallel: Parallel,
    fitted: OneRank,
    links: Links,
    measured_s: float | None,
) -> StepOnRanks:
    """alone, share: the step on one rank, and one rank's part of it.  measured_s: of the step on
    one rank, where it was measured.  Raises ValueError where a collective was not measured."""
    one = fitted.seconds(Work.of(alone), fitted.ceilings)
    part = fitted.seconds(Work.of(share), links.ceilings(fitted.ceilings))
    base = one if measured_s is None else np.full_like(one, measured_s)
    compute = base * part / one
    sent = sum(
        m.calls * links.seconds(m.collective, m.ranks, m.bytes_sent, links.across(m.axis, parallel))
        for m in messages
    )
    seconds, drawn = compute[0] + sent, compute[1:] + sent
    low, high = np.percentile(drawn, INTERVAL) if len(drawn) else (seconds, seconds)
    return StepOnRanks(
        step_s=Quantity(float(seconds), min(float(low), seconds), max(float(high), seconds)),
        compute_s=float(compute[0]),
        communication_s=float(sent),
        one_rank_s=float(base[0]),
        one_rank="fitted" if measured_s is None else "measured",
        efficiency=float(base[0] / (parallel.of_one_sample * seconds)),
        flops_per_rank=share.flops,
        messages=list(messages),
        stages_fitted=fitted.stages,
    )
