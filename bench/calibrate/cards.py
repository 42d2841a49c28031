"""Cards of one kind beside one another: how many times the typical card's seconds each one takes.

    log seconds = point + card + noise

by least squares over the points that several cards measured.  The typical card is the median one.
A card that was not measured takes a factor around 1 with the spread of the others (a random
effect: DerSimonian and Laird, 1986, "Meta-analysis in clinical trials").
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import t as student

from bench.core.quantity import Quantity
from bench.results.records import CeilingsRecord, PointRecord, Record
from bench.results.store import on_one_card, point_records
from bench.results.video import MEASURED

OFF = 0.10
"""Of a card's seconds: one that is further from the typical is named before it enters a fit."""
FAR = 3.0  # robust standard deviations, beyond which a card says nothing of the others' spread
QUANTILES = np.arange(0.025, 1.0, 0.05)
NOISE = 1e-4  # of log seconds: the least that is believed of medians


@dataclass(frozen=True)
class Card:
    """One card.  Provenance: fitted."""

    id: str
    """Hash of its UUID."""
    points: int
    """That it shares with others, stage by stage."""
    factor: Quantity
    """Its seconds over the typical card's; 90 % interval."""
    se: float
    """Of the logarithm."""

    @property
    def off(self) -> bool:
        """Is it more than OFF from the typical card?"""
        return abs(self.factor.value - 1) > OFF


@dataclass(frozen=True)
class Cards:
    """What the cards of some records are like."""

    cards: tuple[Card, ...]
    """The slowest last; none where no point was measured on two."""
    spread: float
    """Standard deviation of log seconds between cards, without those that are far off."""
    usual: int
    """Cards that the spread rests on."""

    @property
    def worst(self) -> Card | None:
        """Furthest from the typical one."""
        return max(self.cards, key=lambda c: abs(np.log(c.factor.value)), default=None)

    def factor_of(self, record: PointRecord) -> float:
        """Of a record's card; 1 where it was not compared."""
        name = record.environment.device_uuid_hash
        return next((c.factor.value for c in self.cards if c.id == name), 1.0)

    def draws(self) -> list[float]:
        """Factors of a card that was not measured, at even steps of probability; [1] of one."""
        if self.usual < 2:
            return [1.0]
        scale = self.spread * np.sqrt(1 + 1 / self.usual)
        return np.exp(scale * student.ppf(QUANTILES, self.usual - 1)).tolist()


ALONE = Cards((), 0.0, 0)


@dataclass(frozen=True)
class Reading:
    """One stage of a point on one card."""

    point: str
    card: str
    seconds: float


def readings(records: Iterable[Record]) -> list[Reading]:
    """Of points that cards measured by themselves."""
    points = on_one_card(point_records(list(records)))
    return [
        Reading(
            f"{record.fingerprint}/{stage}", record.environment.device_uuid_hash, timing.median_s
        )
        for record in points
        if record.outcome in MEASURED and record.environment.device_uuid_hash is not None
        for stage, timing in record.timings.items()
    ]


def cards_of(records: Iterable[Record]) -> Cards:
    """The cards of these records; ALONE where nothing compares two."""
    return compare_cards(readings(records))


def compare_cards(found: Sequence[Reading]) -> Cards:
    """Of the cards that shared points connect, the largest group."""
    shared = _connected(found)
    names = sorted({reading.card for reading in shared})
    if len(names) < 2:
        return ALONE
    effects, errors = _two_way(shared, names)
    effects = effects - np.median(effects)
    width = NormalDist().inv_cdf(0.95)
    cards = [
        Card(
            id=name,
            points=sum(reading.card == name for reading in shared),
            factor=Quantity(
                float(np.exp(effect)),
                float(np.exp(effect - width * error)),
                float(np.exp(effect + width * error)),
            ),
            se=float(error),
        )
        for name, effect, error in zip(names, effects, errors, strict=True)
    ]
    usual = _usual(effects)
    spread = _spread(effects[usual], errors[usual])
    ordered = sorted(cards, key=lambda card: (card.factor.value, card.id))
    return Cards(tuple(ordered), spread, int(usual.sum()))


def _connected(found: Sequence[Reading]) -> list[Reading]:
    """Readings of points that several cards have, of the largest group that they connect."""
    cards_by_point: dict[str, set[str]] = defaultdict(set)
    for reading in found:
        cards_by_point[reading.point].add(reading.card)
    shared = [r for r in found if len(cards_by_point[r.point]) > 1]
    if not shared:
        return []
    index = {name: i for i, name in enumerate(dict.fromkeys(_nodes(shared)))}
    rows = [index["card", r.card] for r in shared]
    columns = [index["point", r.point] for r in shared]
    graph = coo_array((np.ones(len(shared)), (rows, columns)), shape=(len(index), len(index)))
    _, labels = connected_components(graph, directed=False)
    largest = np.bincount(labels[rows]).argmax()
    return [r for r, row in zip(shared, rows, strict=True) if labels[row] == largest]


def _nodes(shared: Sequence[Reading]) -> Iterable[tuple[str, str]]:
    for reading in shared:
        yield "card", reading.card
        yield "point", reading.point


def _two_way(shared: Sequence[Reading], names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """(k,) effects of the cards, of mean 0, and their standard errors."""
    card_of = {name: i for i, name in enumerate(names)}
    points = {name: i for i, name in enumerate(dict.fromkeys(r.point for r in shared))}
    n, k = len(shared), len(names)
    card = np.array([card_of[r.card] for r in shared])
    point = np.array([points[r.point] for r in shared])
    y = np.log([r.seconds for r in shared])
    # Points are swept out: each card's rows and log seconds less the point's mean.
    counts = np.bincount(point)
    dummies = np.zeros((n, k))
    dummies[np.arange(n), card] = 1.0
    means = np.zeros((len(points), k))
    np.add.at(means, point, dummies)
    swept = dummies - (means / counts[:, None])[point]
    left = y - (np.bincount(point, weights=y) / counts)[point]
    inverse = np.linalg.pinv(swept.T @ swept)
    effects = inverse @ swept.T @ left
    freedom = n - len(points) - (k - 1)
    residuals = left - swept @ effects
    variance = NOISE**2 if freedom < 1 else max(NOISE**2, float(residuals @ residuals) / freedom)
    return effects, np.sqrt(variance * np.diag(inverse))


def _usual(effects: np.ndarray) -> np.ndarray:
    """(k,) bool: not far off, by the median of the distances.  A card within OFF never is."""
    robust = 1.4826 * np.median(np.abs(effects))
    return (np.abs(effects) <= np.log1p(OFF)) | (np.abs(effects) <= FAR * robust)


def _spread(effects: np.ndarray, errors: np.ndarray) -> float:
    """Between cards: what the errors of the effects do not explain."""
    if len(effects) < 2:
        return 0.0
    between = effects.var(ddof=1) - np.mean(errors**2)
    return float(np.sqrt(max(between, 0.0)))


def typical_ceilings(found: Mapping[str | None, CeilingsRecord]) -> CeilingsRecord:
    """Of several cards' ceilings each probe of the median rate.  found: by card."""
    by_probe = defaultdict(list)
    for record in found.values():
        for probe in record.probes:
            key = (probe.kind, probe.dtype, probe.backend, tuple(sorted(probe.shape.items())))
            by_probe[key].append(probe)
    middle = [
        sorted(probes, key=lambda p: p.rate)[(len(probes) - 1) // 2] for probes in by_probe.values()
    ]
    latest = max(found.values(), key=lambda record: record.started_utc)
    return latest.model_copy(update={"probes": middle})
