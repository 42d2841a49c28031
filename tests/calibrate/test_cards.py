"""Cards of one kind: factors of synthetic cards are found, and so is their spread."""

import numpy as np
import pytest

from bench.calibrate.cards import ALONE, Reading, cards_of, compare_cards, typical_ceilings
from support.records import ceilings_record, point_record

NOISE = 0.005


def readings(
    factors: dict[str, float], rng: np.random.Generator, points: int = 12, shared: int = 4
) -> list[Reading]:
    """Every card measures the first `shared` points, and a share of the rest."""
    found = []
    for i, (card, factor) in enumerate(factors.items()):
        for point in range(points):
            if point < shared or point % len(factors) == i:
                seconds = 10.0 ** (point % 5 - 3) * factor * np.exp(NOISE * rng.standard_normal())
                found.append(Reading(f"p{point}", card, float(seconds)))
    return found


def eight(rng: np.random.Generator, spread: float = 0.05) -> dict[str, float]:
    """Seven usual cards and one that runs at 0.8 of their speed."""
    factors = np.exp(spread * rng.standard_normal(7))
    return {f"card-{i}": float(f) for i, f in enumerate(factors)} | {"bad": 1 / 0.8}


def test_known_factors_are_found_within_three_standard_errors():
    worst, named = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        true = eight(rng)
        found = compare_cards(readings(true, rng))
        typical = np.median(np.log(list(true.values())))
        named.append(found.worst.id == "bad")
        assert next(card for card in found.cards if card.id == "bad").off
        for card in found.cards:
            error = np.log(card.factor.value) - (np.log(true[card.id]) - typical)
            worst.append(abs(error) / card.se)
    # Of 320 readings three standard errors are passed by one (0.3 %); the median card adds its own.
    assert np.mean(np.array(worst) > 3) < 0.02
    assert np.mean(named) > 0.9  # a usual card may by chance be as far off on the other side


def test_intervals_for_a_new_card_cover_nine_in_ten():
    covered = []
    for seed in range(300):
        rng = np.random.default_rng(1000 + seed)
        true = eight(rng)
        found = compare_cards(readings(true, rng))
        typical = np.exp(np.median(np.log(list(true.values()))))
        low, high = np.percentile(found.draws(), [5, 95])
        new = np.exp(0.05 * rng.standard_normal(50)) / typical
        covered.append(np.mean((low <= new) & (new <= high)))
    assert 0.85 <= np.mean(covered) <= 0.95


def test_equal_cards_have_no_spread():
    rng = np.random.default_rng(0)
    found = compare_cards(readings(dict.fromkeys("abcd", 1.0), rng))
    assert found.spread < 0.005
    assert not any(card.off for card in found.cards)
    assert max(found.draws()) < 1.02


def test_a_cards_own_points_say_nothing_of_it():
    apart = [Reading("p0", "a", 1.0), Reading("p1", "b", 2.0)]
    assert compare_cards(apart) == ALONE
    assert compare_cards([]) == ALONE
    assert ALONE.draws() == [1.0]


def test_cards_that_nothing_connects_are_not_compared():
    pairs = [("p0", "a"), ("p0", "b"), ("p1", "a"), ("p1", "b"), ("p2", "c"), ("p2", "d")]
    found = compare_cards([Reading(point, card, 1.0) for point, card in pairs])
    assert {card.id for card in found.cards} == {"a", "b"}


def on_card(record, card: str, **fields):
    environment = record.environment.model_copy(update={"device_uuid_hash": card})
    return record.model_copy(update={"environment": environment, **fields})


def test_records_of_two_cards_are_read_by_card():
    slow = point_record().timings["denoise_step"].model_copy(update={"median_s": 1.2})
    records = [
        on_card(point_record(), "a"),
        on_card(point_record(), "b", timings={"denoise_step": slow}),
    ]
    found = cards_of(records)
    ratio = found.cards[1].factor.value / found.cards[0].factor.value
    assert [card.id for card in found.cards] == ["a", "b"]
    assert ratio == pytest.approx(1.2)
    assert found.factor_of(records[1]) == found.cards[1].factor.value
    assert found.factor_of(point_record()) == 1.0


def test_typical_ceilings_are_the_median_of_the_cards():
    from bench.measure.timing.sampling import summarise
    from bench.results.records import Probe

    def of(card: str, seconds: float):
        timing = summarise([seconds] * 3, [], "converged", True)
        gemm = Probe(
            kind="gemm",
            dtype="bf16",
            backend=None,
            shape={"m": 1, "n": 1, "k": 1},
            flops=100,
            bytes_moved=None,
            timing=timing,
        )
        return on_card(ceilings_record(), card, probes=[gemm])

    found = {card: of(card, s) for card, s in (("a", 1.0), ("b", 2.0), ("c", 10.0))}
    assert typical_ceilings(found).peak("gemm") == 50.0
