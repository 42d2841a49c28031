"""Make what travels with the package from the published tables: observations, one file a card."""

from collections.abc import Sequence

import numpy as np

from bench.calibrate.evidence.card import (
    CardEvidence,
    EffectRow,
    HeldOut,
    HeldOutErrors,
    RowPrediction,
    card_names,
)
from bench.calibrate.evidence.effects import Scatter
from bench.calibrate.evidence.fit import fit
from bench.calibrate.evidence.gather import sources
from bench.calibrate.evidence.held_out import (
    disagreeing,
    groupings,
    predict_held_out,
    summarise,
)
from bench.calibrate.evidence.observation import Observation, columns
from bench.calibrate.evidence.posterior import T95, Posterior
from bench.core.load import load
from bench.core.specs.gpu import Gpu

DIGITS = 6  # that a number of a file keeps


def posterior_of(observations: Sequence[Observation], scatter: Scatter) -> Posterior:
    """What all observations say together."""
    seconds = np.array([o.seconds for o in observations])
    return fit(columns(observations), seconds, scatter).posterior


def held_out_errors(observations: Sequence[Observation], scatter: Scatter) -> list[HeldOut]:
    """By row, size, model, source and card: of each card with rows, and of all together."""
    cards = list(dict.fromkeys(o.gpu for o in observations))
    found = []
    for by, groups in groupings(observations).items():
        predictions = predict_held_out(by, groups, observations, scatter)
        found += [summarise(predictions, observations, gpu) for gpu in (None, *cards)]
    return found


def predict_rows(
    observations: Sequence[Observation], scatter: Scatter, errors: Sequence[HeldOut]
) -> dict[str, RowPrediction]:
    """Every row by the fit of all others."""
    found = predict_held_out("row", [o.id for o in observations], observations, scatter)
    of_card = {e.gpu: e.error for e in errors if e.by == "row"}
    middle, width = found.log_seconds, T95 * found.spread
    return {
        o.id: RowPrediction(
            gpu=o.gpu,
            seconds=_short(np.exp(middle[i])),
            low=_short(np.exp(middle[i] - width[i])),
            high=_short(np.exp(middle[i] + width[i])),
            held_out_error=_short(of_card[o.gpu]),
        )
        for i, o in enumerate(observations)
    }


def card_files(
    observations: Sequence[Observation], scatter: Scatter, errors: Sequence[HeldOut]
) -> list[CardEvidence]:
    """One of each card of configs/gpus that has a datasheet."""
    whole = posterior_of(observations, scatter)
    far = disagreeing(observations, scatter)
    return [_card(name, observations, whole, far, errors) for name in card_names()]


def _card(
    name: str,
    observations: Sequence[Observation],
    whole: Posterior,
    far: dict[str, float],
    errors: Sequence[HeldOut],
) -> CardEvidence:
    architecture = load(Gpu, name).architecture
    mine = [o for o in observations if o.gpu == name]
    family = [o for o in observations if load(Gpu, o.gpu).architecture == architecture]
    family = family if architecture else []
    of_card = whole.of_card(name, architecture)
    lower = of_card.covariance[np.tril_indices(len(of_card.mean))]
    return CardEvidence(
        gpu=name,
        architecture=architecture,
        kind="published" if mine else "sibling" if family else "datasheet",
        n=len(mine),
        n_architecture=len(family),
        n_all=len(observations),
        sources=sources(mine or family or observations),
        siblings=sorted({o.gpu for o in family} - {name}),
        largest_tokens=max(o.tokens for o in family or observations),
        smallest_tokens=min(o.tokens for o in family or observations),
        disagreeing={o.id: _short(far[o.id]) for o in mine if o.id in far},
        held_out=[_errors(e) for e in errors if e.gpu in (name, None)],
        scatter=whole.scatter,
        effects=[
            EffectRow(
                term=e.term,
                of=e.of,
                family=e.family,
                level=e.level,
                spread=e.spread,
                mean=_short(mean),
            )
            for e, mean in zip(of_card.effects, of_card.mean, strict=True)
        ],
        covariance=[_short(value) for value in lower],
    )


def _errors(e: HeldOut) -> HeldOutErrors:
    simple = [x for x in (e.one_mfu, e.two_rates, e.one_mfu_of_all_cards) if x is not None]
    return HeldOutErrors(
        by=e.by,
        of=e.gpu or "all",
        n=e.n,
        error=_short(e.error),
        worst=_short(e.worst),
        inside=_short(e.inside),
        one_mfu=None if e.one_mfu is None else _short(e.one_mfu),
        best_simple=_short(min(simple)) if simple else None,
    )


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
