"""Make the shipped file of several cards: fitted values, and how right they are."""

from collections.abc import Sequence

import numpy as np

from bench.calibrate.evidence.posterior import T95
from bench.calibrate.published.table import Skipped
from bench.calibrate.scaling.evidence import (
    HeldOutScaling,
    ScalingEvidence,
    ScalingRow,
    axes_of,
)
from bench.calibrate.scaling.fit import constant_efficiency, fit_scaling, groups_of, held_out
from bench.calibrate.scaling.model import NAMES, Observed, log_ratios

DIGITS = 5
COUNTS = (2, 4, 8)


def scaling_file(rows: Sequence[Observed], skipped: Sequence[Skipped]) -> ScalingEvidence:
    """All that the package ships of it.  Held-out errors are of rows whose source has its own row
    on one card, and apart of the others, whose one card is a forecast."""
    values = fit_scaling(rows)
    groups = groups_of(rows)
    by_way = {by: held_out(rows, names) for by, names in groups.items()}
    simple = {by: constant_efficiency(rows, names) for by, names in groups.items()}
    own = np.array([o.own_base for o in rows])
    scatter = float(np.sqrt(np.nanmean(by_way["source"][own] ** 2)))
    errors = [
        found
        for by in groups
        for based in (True, False)
        for cards in (None, *COUNTS)
        if (found := _errors(rows, by, by_way[by], simple[by], based, cards, scatter)) is not None
    ]
    fitted = log_ratios(rows, values)
    return ScalingEvidence(
        values={n: _short(v) for n, v in zip(NAMES, values, strict=True)},
        scatter=_short(scatter),
        n=len(rows),
        n_own_base=int(own.sum()),
        sources=sorted({o.source for o in rows}),
        held_out=errors,
        rows=[
            ScalingRow(
                id=o.id,
                gpu=o.gpu,
                model=o.model,
                source=o.source,
                size=o.size,
                forwards=o.one.forwards,
                mesh=o.parallel.words(),
                cards=o.parallel.ranks,
                axes=axes_of(o.parallel),
                link=o.link.kind,
                own_base=o.own_base,
                one_card_s=_short(o.one.seconds),
                seconds=o.seconds,
                fitted_s=_short(o.seconds * np.exp(fitted[i])),
                held_out_s=_short(o.seconds * np.exp(by_way["source"][i])),
            )
            for i, o in enumerate(rows)
        ],
        left_out={s.id: s.reason for s in skipped},
    )


def _errors(rows, by, logs, simple, based, cards, scatter) -> HeldOutScaling | None:
    """Of rows on so many cards; None where there is none."""
    mine = np.array([o.own_base == based and cards in (None, o.parallel.ranks) for o in rows])
    mine &= np.isfinite(logs)
    if not mine.any():
        return None
    constant = simple[mine & np.isfinite(simple)]
    noise = np.array([o.noise for o in rows])
    width = T95 * np.hypot(scatter, np.where([o.own_base for o in rows], 0.0, noise))
    return HeldOutScaling(
        by=by,
        own_base=based,
        cards=cards,
        n=int(mine.sum()),
        error=_short(_mean(logs[mine])),
        constant=_short(_mean(constant)) if len(constant) else None,
        inside=_short((np.abs(logs[mine]) <= width[mine]).mean()),
    )


def _mean(logs: np.ndarray) -> float:
    return float(np.abs(np.exp(logs) - 1).mean())


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
