"""Seconds of a step of any batch, from those that were measured.  Pure, no torch.

A batch of one shape lies on that shape's own curve, seconds against tokens, straight between the
sizes that were measured. A mixed batch was either measured itself, or is fitted: seconds = fixed +
linear FLOPs / rate + attention FLOPs / rate + a part for each request, since attention runs request
by request; all parts at least 0, fitted to relative errors.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

from bench.results.readings import Timing
from bench.studies.serving.queue import Composition, Shape

MAX_REQUESTS = 64  # in a batch: more of the smallest shape say nothing new


@dataclass(frozen=True)
class StepTime:
    """One batch, measured."""

    composition: Composition
    packed: bool
    """Requests end to end in one sequence; else a batch dimension, which takes one shape alone."""
    median_s: float
    low_s: float
    high_s: float
    n: int

    @property
    def one_shape(self) -> int | None:
        """The shape that all requests have, if they have one."""
        present = [i for i, count in enumerate(self.composition) if count]
        return present[0] if len(present) == 1 else None


@dataclass(frozen=True)
class ShapeCost:
    """What a request adds to a step: tokens, and counted FLOPs of its forwards."""

    tokens: int
    linear_flops: int
    attention_flops: int


@dataclass(frozen=True)
class StepTimes:
    """The measured batches, and what follows from them."""

    costs: tuple[ShapeCost, ...]
    measured: tuple[StepTime, ...]
    _known: dict[Composition, float] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def seconds(self, composition: Composition) -> float:
        """Raises ValueError for more requests of one shape than were measured."""
        if composition not in self._known:
            self._known[composition] = self._seconds(composition)
        return self._known[composition]

    def source(self, composition: Composition) -> str:
        """measured, interpolated (one shape, between two sizes) or fitted."""
        if any(
            t.composition == composition and (t.packed != (t.one_shape is not None))
            for t in self.measured
        ):
            return "measured"
        return "interpolated" if sum(c > 0 for c in composition) == 1 else "fitted"

    def _seconds(self, composition: Composition) -> float:
        present = [i for i, count in enumerate(composition) if count]
        if len(present) == 1:
            return self._of_one_shape(present[0], composition[present[0]])
        for time in self.measured:
            if time.composition == composition:
                return time.median_s
        return predict(self.parameters, features(composition, self.costs))

    def _of_one_shape(self, shape: int, count: int) -> float:
        curve = sorted(
            (t.composition[shape], t.median_s)
            for t in self.measured
            if t.one_shape == shape and not t.packed
        )
        if not curve or count > curve[-1][0]:
            raise ValueError(
                f"{count} requests of shape {shape} in a batch: measured up to"
                f" {curve[-1][0] if curve else 0}"
            )
        for (few, before), (many, after) in pairwise(curve):
            if few <= count <= many:
                return before + (after - before) * (count - few) / (many - few)
        return curve[0][1]

    @property
    def packed(self) -> list[StepTime]:
        return [t for t in self.measured if t.packed]

    @cached_property
    def parameters(self) -> list[float]:
        """Seconds: fixed, of a linear FLOP, of an attention FLOP, of a request."""
        return fit(
            [features(t.composition, self.costs) for t in self.packed],
            [t.median_s for t in self.packed],
        )

    def leave_one_out(self) -> tuple[float, float] | None:
        """Mean and worst relative error of packed batches that the fit never saw; None where too
        few were measured."""
        rows, seconds = (
            [features(t.composition, self.costs) for t in self.packed],
            [t.median_s for t in self.packed],
        )
        if len(rows) <= 5:
            return None
        errors = [
            abs(
                predict(fit(rows[:i] + rows[i + 1 :], seconds[:i] + seconds[i + 1 :]), rows[i])
                / seconds[i]
                - 1
            )
            for i in range(len(rows))
        ]
        return sum(errors) / len(errors), max(errors)


@dataclass(frozen=True)
class MeasuredServing:
    """What the simulation needs to know of a model on a device."""

    shapes: tuple[Shape, ...]
    times: StepTimes
    beside: tuple[dict[str, Timing], ...]
    """Of each shape: its stages beside the steps."""


def features(composition: Composition, costs: Sequence[ShapeCost]) -> list[float]:
    """What a packed batch's seconds are made of."""
    return [
        1.0,
        float(sum(n * c.linear_flops for n, c in zip(composition, costs, strict=True))),
        float(sum(n * c.attention_flops for n, c in zip(composition, costs, strict=True))),
        float(sum(composition)),
    ]


def fit(rows: Sequence[Sequence[float]], seconds: Sequence[float]) -> list[float]:
    """Parameters of at least 0 that predict `seconds` with the least squared relative error."""
    import numpy as np
    from scipy.optimize import nnls

    matrix, target = np.array(rows), np.array(seconds)
    scale = matrix.max(axis=0)  # FLOPs and ones side by side
    return (nnls(matrix / scale / target[:, None], np.ones(len(rows)))[0] / scale).tolist()


def predict(parameters: Sequence[float], row: Sequence[float]) -> float:
    return sum(p * x for p, x in zip(parameters, row, strict=True))


def largest_batch(cost: ShapeCost, max_batch: int, token_budget: int) -> int:
    """Requests of one shape that any policy puts together."""
    return min(max(max_batch, token_budget // cost.tokens, 1), MAX_REQUESTS)


def grid(
    costs: Sequence[ShapeCost], max_batch: int, token_budget: int
) -> list[tuple[Composition, bool]]:
    """(batch, packed) to measure: each shape alone in powers of two, each twice and at its largest
    also packed, and mixes from two requests to a full budget."""
    shapes = range(len(costs))

    def only(shape: int, count: int) -> Composition:
        return tuple(count if i == shape else 0 for i in shapes)

    wanted: dict[tuple[Composition, bool], None] = {}
    for i in shapes:
        most = largest_batch(costs[i], max_batch, token_budget)
        sizes = sorted({2**k for k in range(most.bit_length()) if 2**k < most} | {most})
        wanted |= {(only(i, n), False): None for n in sizes}
        if len(costs) > 1:
            wanted |= {(only(i, n), True): None for n in {min(2, most), most} if n > 1}
    mixes = [tuple(int(k in (i, j)) for k in shapes) for i in shapes for j in shapes if i < j]
    if len(costs) > 1:
        mixes.append(tuple(1 for _ in shapes))
        mixes += [tuple(1 + (i == k) for k in shapes) for i in shapes]
        mixes += [
            _filled(tuple(1 for _ in shapes), order, costs, token_budget)
            for order in [[*shapes], *([i] for i in shapes)]
        ]
    wanted |= {
        (mix, True): None
        for mix in mixes
        if sum(mix) <= MAX_REQUESTS
        and sum(n * c.tokens for n, c in zip(mix, costs, strict=True)) <= token_budget
    }
    return list(wanted)


def _filled(
    mix: Composition, order: Sequence[int], costs: Sequence[ShapeCost], token_budget: int
) -> Composition:
    """Requests of the shapes in `order`, in turns, until the next would not fit."""
    counts, turn = list(mix), 0
    tokens = sum(n * c.tokens for n, c in zip(counts, costs, strict=True))
    while (
        tokens + costs[order[turn % len(order)]].tokens <= token_budget
        and sum(counts) < MAX_REQUESTS
    ):
        tokens += costs[order[turn % len(order)]].tokens
        counts[order[turn % len(order)]] += 1
        turn += 1
    return tuple(counts)
