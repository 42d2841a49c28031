"""The six numbers of a mesh's seconds, fitted to published rows, and how right they are about rows
that were left out."""

from collections.abc import Hashable, Sequence

import numpy as np

from bench.calibrate.fitting.accuracy import TooFewPoints, leave_groups_out
from bench.calibrate.fitting.optimise import solve
from bench.calibrate.fitting.parameter import Parameter
from bench.calibrate.scaling.model import Observed, log_ratios

STEP = 1e-4  # of a parameter's logarithm, for slopes
OUTLYING = 2.0  # expected errors, from where a row pulls linearly

PARAMETERS = (
    Parameter(unit="of the link", low=0.02, high=1.0, prior=0.4, spread=0.7),
    Parameter(unit="of the link", low=0.02, high=1.0, prior=0.3, spread=0.7),
    Parameter(unit="s a call", low=1e-6, high=5e-3, prior=5e-5, spread=1.0),
    Parameter(unit="of one card's", low=0.1, high=10.0, prior=1.0, spread=0.5),
    Parameter(unit="of the bytes", low=1e-3, high=1.0, prior=0.2, spread=1.0),
    Parameter(unit="a doubling", low=1e-4, high=0.5, prior=0.02, spread=1.0),
)
"""Of model.NAMES, in its order."""


def fit_scaling(rows: Sequence[Observed]) -> np.ndarray:
    """(6,) values of model.NAMES.  Raises TooFewPoints without rows."""
    if not rows:
        raise TooFewPoints("no row on several cards")
    noise = np.array([o.noise for o in rows])

    def misfits(values: np.ndarray) -> np.ndarray:
        return log_ratios(rows, values) / noise

    def slopes(values: np.ndarray) -> np.ndarray:
        at = misfits(values)
        moved = np.exp(np.diag(np.full(len(values), STEP)))
        return np.column_stack([(misfits(values * row) - at) / STEP for row in moved])

    return solve(PARAMETERS, misfits, slopes, linear_beyond=OUTLYING).values


def groups_of(rows: Sequence[Observed]) -> dict[str, list[Hashable]]:
    """What is left out at once."""
    return {
        "model": [o.model for o in rows],
        "source": [o.source for o in rows],
        "card": [o.gpu for o in rows],
    }


def held_out(rows: Sequence[Observed], groups: Sequence[Hashable]) -> np.ndarray:
    """(n,) log(predicted / measured), each group by the fit of the others."""

    def predict(kept: np.ndarray, out: np.ndarray) -> np.ndarray:
        values = fit_scaling([o for o, k in zip(rows, kept, strict=True) if k])
        return log_ratios([o for o, k in zip(rows, out, strict=True) if k], values)

    return leave_groups_out(groups, predict)


def constant_efficiency(rows: Sequence[Observed], groups: Sequence[Hashable]) -> np.ndarray:
    """The baseline: the mean efficiency of the other groups' rows on as many cards -> (n,)
    log(predicted / measured), nan where there is none."""
    cards = np.array([o.parallel.ranks for o in rows])
    seconds = np.array([o.seconds for o in rows])
    alone = np.array([o.one.seconds for o in rows])
    efficiency = alone / (cards * seconds)

    def predict(kept: np.ndarray, out: np.ndarray) -> np.ndarray:
        found = np.full(int(out.sum()), np.nan)
        for i, row in enumerate(np.flatnonzero(out)):
            alike = kept & (cards == cards[row])
            if alike.any():
                by = alone[row] / (cards[row] * efficiency[alike].mean())
                found[i] = np.log(by / seconds[row])
        return found

    return leave_groups_out(groups, predict)
