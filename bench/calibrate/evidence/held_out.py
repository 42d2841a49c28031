"""How right the evidence is about what it has not seen: each row, size, model, source and card left
out, beside simpler models that are held out alike."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from bench.calibrate.evidence.card import HeldOut
from bench.calibrate.evidence.effects import TERMS, Scatter
from bench.calibrate.evidence.fit import fit
from bench.calibrate.evidence.observation import Columns, Observation, columns
from bench.calibrate.evidence.posterior import T95
from bench.calibrate.fitting.accuracy import TooFewPoints, leave_groups_out

PRODUCTS = [TERMS.index(term) for term in ("linear", "attention", "vae")]


def groupings(observations: Sequence[Observation]) -> dict[str, list[Hashable]]:
    """What is left out at once: way -> the group of each observation."""
    return {
        "row": [o.id for o in observations],
        "size": [(o.model, o.size) for o in observations],
        "model": [o.model for o in observations],
        "source": [o.source for o in observations],
        "card": [o.gpu for o in observations],
    }


@dataclass(frozen=True)
class Predictions:
    """Each observation, predicted from those of other groups."""

    by: str
    log_seconds: np.ndarray
    spread: np.ndarray
    one_mfu: np.ndarray
    """(n,) seconds, as the two that follow; nan where the others say nothing."""
    two_rates: np.ndarray
    one_mfu_of_all_cards: np.ndarray


def predict_held_out(
    by: str,
    groups: Sequence[Hashable],
    observations: Sequence[Observation],
    scatter: Scatter,
) -> Predictions:
    """Refit without each group.  The scatters are those of all observations."""
    all_, seconds = columns(observations), np.array([o.seconds for o in observations])
    spread = np.full(len(observations), np.nan)

    def logs(kept: np.ndarray, out: np.ndarray) -> np.ndarray:
        found = fit(_some(all_, kept), seconds[kept], scatter).posterior
        forecast = found.forecast(_some(all_, out))
        spread[out] = forecast.spread
        return forecast.log_seconds

    cards = all_.levels["card"]
    products = np.exp(all_.at_datasheet[:, PRODUCTS])
    return Predictions(
        by=by,
        log_seconds=leave_groups_out(groups, logs),
        spread=spread,
        one_mfu=_by_card(groups, cards, products, seconds, one_mfu),
        two_rates=_by_card(groups, cards, products, seconds, two_rates),
        one_mfu_of_all_cards=_by_card(groups, None, products, seconds, one_mfu),
    )


def summarise(
    found: Predictions, observations: Sequence[Observation], gpu: str | None = None
) -> HeldOut:
    """The errors of one card's rows, or of all.  At least one row must be of the card."""
    mine = np.array([gpu in (None, o.gpu) for o in observations])
    seconds = np.array([o.seconds for o in observations])
    logs = np.log(seconds)
    errors = np.abs(np.exp(found.log_seconds - logs) - 1)[mine]
    inside = (np.abs(logs - found.log_seconds) <= T95 * found.spread)[mine]
    ids = [o.id for o, kept in zip(observations, mine, strict=True) if kept]
    return HeldOut(
        by=found.by,
        gpu=gpu,
        n=int(mine.sum()),
        error=float(errors.mean()),
        worst=float(errors.max()),
        worst_row=ids[int(errors.argmax())],
        inside=float(inside.mean()),
        one_mfu=_mean_error(found.one_mfu[mine], seconds[mine]),
        two_rates=_mean_error(found.two_rates[mine], seconds[mine]),
        one_mfu_of_all_cards=_mean_error(found.one_mfu_of_all_cards[mine], seconds[mine]),
    )


def disagreeing(observations: Sequence[Observation], scatter: Scatter) -> dict[str, float]:
    """Rows that the rest of their card contradicts: id -> measured over predicted without it, where
    it lies outside the 99 % interval."""
    found = predict_held_out("row", [o.id for o in observations], observations, scatter)
    logs = np.log([o.seconds for o in observations])
    far = np.abs(logs - found.log_seconds) > OUTSIDE * found.spread
    ratios = np.exp(logs - found.log_seconds)
    return {
        o.id: float(ratio)
        for o, is_far, ratio in zip(observations, far, ratios, strict=True)
        if is_far
    }


OUTSIDE = 3.355  # scipy.stats.t.ppf(0.995, posterior.FREEDOM)


def one_mfu(kept: np.ndarray, seconds: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """(m,) seconds by one rate: the geometric mean of the kept rows' utilisation.

    kept (n, 3), wanted (m, 3): seconds of the products at the datasheet."""
    return wanted.sum(axis=1) * np.exp(np.log(seconds / kept.sum(axis=1)).mean())


def two_rates(kept: np.ndarray, seconds: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The same with a rate for attention and one for the rest, by least relative squares."""
    pairs = np.column_stack([kept[:, 0] + kept[:, 2], kept[:, 1]])
    rates, _ = nnls(pairs / seconds[:, None], np.ones(len(seconds)))
    return np.column_stack([wanted[:, 0] + wanted[:, 2], wanted[:, 1]]) @ rates


def _by_card(groups, cards, products, seconds, model) -> np.ndarray:
    """(n,) seconds of each group's rows, from other groups' rows of their card (cards None: of all
    cards)."""

    def predict(kept: np.ndarray, out: np.ndarray) -> np.ndarray:
        found = np.full(int(out.sum()), np.nan)
        names = cards if cards is not None else np.zeros(len(seconds))
        for name in set(names[out].tolist()):
            same = kept & (names == name)
            if same.any():
                of_card = (names == name)[out]
                found[of_card] = model(products[same], seconds[same], products[out][of_card])
        if np.isnan(found).all():
            raise TooFewPoints("no other row of these cards")
        return found

    return leave_groups_out(groups, predict)


def _mean_error(predicted: np.ndarray, seconds: np.ndarray) -> float | None:
    errors = np.abs(predicted / seconds - 1)
    known = errors[np.isfinite(errors)]
    return float(known.mean()) if len(known) else None


def _some(all_: Columns, kept: np.ndarray) -> Columns:
    """Those rows of the columns."""
    return Columns(
        at_datasheet=all_.at_datasheet[kept],
        fast=all_.fast[kept],
        unfused=all_.unfused[kept],
        fp8=all_.fp8[kept],
        power=all_.power[kept],
        width=all_.width[kept],
        levels={family: names[kept] for family, names in all_.levels.items()},
        noise=all_.noise[kept],
    )
