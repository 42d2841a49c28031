"""What the observations say of the effects, and what that says of any point.

The most probable effects and their covariance there (Laplace's approximation; MacKay 1992).  Noise
is Student's t with FREEDOM degrees, so that a row that is described wrongly pulls less (Lange,
Little & Taylor 1989): noise and weights in turns.
"""

from dataclasses import dataclass

import numpy as np

from bench.calibrate.evidence.effects import (
    TERMS,
    WHOLE,
    Effect,
    Scatter,
    design,
    expected,
    templates,
)
from bench.calibrate.evidence.observation import Columns

FREEDOM = 8.0
T95 = 1.8595  # scipy.stats.t.ppf(0.95, FREEDOM): 90 % lie within so many standard deviations
SPREAD_OF_T = FREEDOM / (FREEDOM - 2)  # variance of Student's t over its squared scale


@dataclass(frozen=True)
class Forecast:
    """Predicted seconds of points."""

    log_seconds: np.ndarray
    """(n,)"""
    spread: np.ndarray
    """(n,) standard deviation of log seconds, of a further observation."""
    shares: np.ndarray
    """(n, 6) of TERMS; they sum to 1."""

    @property
    def seconds(self) -> np.ndarray:
        return np.exp(self.log_seconds)

    @property
    def low(self) -> np.ndarray:
        """(n,) seconds, 5th percentile."""
        return np.exp(self.log_seconds - T95 * self.spread)

    @property
    def high(self) -> np.ndarray:
        return np.exp(self.log_seconds + T95 * self.spread)


@dataclass(frozen=True)
class Posterior:
    """Effects that were observed, and how surely."""

    scatter: Scatter
    effects: tuple[Effect, ...]
    mean: np.ndarray
    """(p,)"""
    covariance: np.ndarray
    """(p, p)"""

    def forecast(self, columns: Columns, *, with_noise: bool = True) -> Forecast:
        """Points as others run them: with a source's scatter, and a row's noise, beside what is not
        known of the effects.

        A level that was not observed, as a new model, has the scatter of its family."""
        placed = design(self.effects, columns)
        logs, shares, slopes = placed.log_seconds(expected(columns), self.mean)
        variance = np.einsum("ni,ij,nj->n", slopes, self.covariance, slopes)
        variance += self._unobserved(columns, shares)
        if with_noise:
            variance += SPREAD_OF_T * (self.scatter.noise * columns.noise) ** 2
        return Forecast(logs, np.sqrt(variance), shares)

    def _unobserved(self, columns: Columns, shares: np.ndarray) -> np.ndarray:
        """(n,) variance of the effects of levels that no observation has."""
        known = {(e.term, e.of, e.level) for e in self.effects if e.family is not None}
        variance = np.zeros(len(columns))
        for template in templates(self.scatter):
            if template.family is None:
                continue
            levels = columns.levels[template.family]
            new = np.array([(template.term, template.of, name) not in known for name in levels])
            share = 1.0 if template.term == WHOLE else shares[:, TERMS.index(template.term)]
            slope = share * columns.covariate(template.of)
            variance += new * (slope * template.spread) ** 2
        return variance

    def of_card(self, gpu: str, architecture: str | None) -> "Posterior":
        """What it says of one card: effects of other cards, architectures and sources left out."""
        mine = {"card": gpu, "architecture": architecture or "unknown"}
        kept = [
            i
            for i, effect in enumerate(self.effects)
            if effect.family in (None, "model")
            or (effect.family in mine and effect.level == mine[effect.family])
        ]
        return Posterior(
            scatter=self.scatter,
            effects=tuple(self.effects[i] for i in kept),
            mean=self.mean[kept],
            covariance=self.covariance[np.ix_(kept, kept)],
        )
