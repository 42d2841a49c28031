"""From a claimed figure and ours to a verdict.  Pure: numbers in, words out.

    accepted = claimed / (1 + tolerance) to claimed * (1 + tolerance), for a range from its low to
    its high end

- holds: all of our interval is accepted, so that a wide interval confirms nothing;
- off by x: none of it is; x is ours over the nearest claimed end, or the other way round, always
  over 1;
- cannot tell: a part of it is, so that our range is too wide to decide, or there is nothing of ours
  that may judge.

A bound judges like any interval: what counting shows to be at most 0.4 refutes a claim of 5 without
a measurement.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import inf
from typing import TYPE_CHECKING, Any

from bench.core.errors import UserError
from bench.core.quantity import Quantity
from bench.core.specs.claim import Claim, Claimed
from bench.core.specs.point import Point
from bench.core.units import plain

if TYPE_CHECKING:
    from bench.calibrate.predict import Estimate
    from bench.core.row import Row

HOLDS, CANNOT_TELL = "holds", "cannot tell"


@dataclass(frozen=True)
class Finding:
    """Our figure for a claim, and why it judges or does not."""

    ours: Quantity | None
    why: str
    judges: bool = True
    """May ours judge?  A bound or a count is shown in any case."""
    command: str | None = None
    """A command that would tell."""
    conditions: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Judged:
    """One line of the ledger."""

    id: str
    quantity: str
    claim: Claim
    claimed: Claimed
    finding: Finding
    verdict: str
    why: str

    @property
    def ratio(self) -> Quantity | None:
        """Ours over claimed.  For a range: over its nearest end, 1 within it; its ends over the far
        ends."""
        ours = self.finding.ours
        if ours is None:
            return None
        low, high = ends(self.claimed)
        nearest = min(max(ours.value, low), high)
        return Quantity(
            ours.value / nearest,
            0.0 if high == inf else ours.low / high,
            inf if low == 0 or ours.high == inf else ours.high / low,
            provenance=ours.provenance,
        )

    @property
    def is_off(self) -> bool:
        return self.verdict.startswith("off by")


def ends(claimed: Claimed) -> tuple[float, float]:
    """Low and high end of the claim: equal for a value, 0 or infinite where a range is open."""
    if claimed.value is not None:
        return claimed.value, claimed.value
    return claimed.low or 0.0, claimed.high or inf


def judge(claimed: Claimed, ours: Quantity, tolerance: float) -> str:
    """holds | off by x | cannot tell.  `off by at least x` where ours is a bound."""
    low, high = ends(claimed)
    least, most = low / (1 + tolerance), high * (1 + tolerance)
    if ours.low >= least and ours.high <= most:
        return HOLDS
    if ours.high < least:
        return _off(low / ours.value) if ours.low > 0 else _off(low / ours.high, bound=True)
    if ours.low > most:
        return _off(ours.value / high) if ours.high < inf else _off(ours.low / high, bound=True)
    return CANNOT_TELL


def _off(factor: float, bound: bool = False) -> str:
    return f"off by {'at least ' if bound else ''}{plain(factor)}x"


def judged(id_: str, quantity: str, claim: Claim, claimed: Claimed, finding: Finding) -> Judged:
    """The verdict, and its reason in words."""
    why = [finding.why]
    verdict = CANNOT_TELL
    if finding.ours is not None and finding.judges:
        verdict = judge(claimed, finding.ours, claim.tolerance)
        if verdict == CANNOT_TELL:
            why.append(
                "our range is too wide to decide "
                f"(accepted: {accepted(claimed, claim.tolerance)} {claimed.unit})"
            )
        elif verdict == HOLDS and claim.quality is not None:
            verdict = CANNOT_TELL
            why.append(
                f"the figure alone would hold, but not {claim.quality!r}: weights are random, so no"
                " picture is judged"
            )
    if claim.note is not None:
        why.append(claim.note)
    return Judged(id_, quantity, claim, claimed, finding, verdict, "; ".join(why))


def accepted(claimed: Claimed, tolerance: float) -> str:
    low, high = ends(claimed)
    parts = [
        *([f"at least {plain(low / (1 + tolerance), 4)}"] if low else []),
        *([f"at most {plain(high * (1 + tolerance), 4)}"] if high < inf else []),
    ]
    return " and ".join(parts)


@dataclass(frozen=True)
class Evidence:
    """All that the ledger asks of a calibration, or of what others published of a card."""

    gpu: str
    recipes: tuple[str, ...]
    """The one that is predicted by default, then the others that are calibrated."""
    estimate: "Callable[[Point], Estimate]"
    words: str = "this {gpu}'s calibration"
    """What it is, as a reason names it."""
    chain: "Callable[[], tuple[list[Row], Finding]] | None" = None
    """The rows of the published estimate by this evidence, where it gives more than minutes."""

    def predict(
        self, point: Point, pick: "Callable[[Estimate], Quantity | None]", missing: str = ""
    ) -> Finding:
        """A quantity of the estimate of a point as a finding; `missing` says why there may be none.

        Outside of the calibrated range the interval does not know what changes out there, so each
        end is moved by the worst held-out error; where no error is known, it does not judge."""
        try:
            estimate = self.estimate(point)
        except UserError as error:
            return Finding(None, str(error))
        q, warnings = pick(estimate), tuple(estimate.warnings)
        if q is None:
            return Finding(None, missing)
        error = estimate.heldout_error
        known = (
            "held-out error unknown"
            if error is None
            else (f"held-out error {error['mean']:.1%}, worst {error['worst']:.1%}")
        )
        why = (
            f"predicted for {point.label} by {self.words.format(gpu=self.gpu)}"
            f" ({estimate.provenance}, {known})"
        )
        widen = 1.0
        if estimate.provenance == "extrapolated":
            if error is None:
                return Finding(
                    replace(q, provenance="extrapolated"),
                    f"{why}: not enough to judge by",
                    judges=False,
                    warnings=warnings,
                )
            widen = 1 + error["worst"]
            why += ", so the interval is widened by the worst"
        return Finding(
            replace(q.widened(widen), provenance=estimate.provenance),
            why,
            warnings=warnings,
        )


@dataclass(frozen=True)
class Shelf:
    """All evidence at hand: a calibration of one card, and what others published of many."""

    own: Evidence | None = None
    published: "Callable[[str], Evidence | None] | None" = None
    """Of a card; None where nothing is published of it."""
    left_out: "Callable[[str], Finding | None] | None" = None
    """A published row by its id, predicted from the other rows; None for one that is not among
    them."""

    def of(self, gpu: str) -> Evidence | None:
        """The calibration where it is of that card, else what is published of it."""
        if self.own is not None and self.own.gpu == gpu:
            return self.own
        return self.published(gpu) if self.published is not None else None


def how_to_tell(gpu: str, suite: str) -> str:
    return f"on {gpu}: ldt-bench run {suite}, then ldt-bench claims --calibration results/{gpu}/..."


def unheld(shelf: Shelf, gpu: str) -> str:
    """Why the evidence at hand does not judge a claim about `gpu`."""
    if shelf.own is None:
        return f"needs a measurement on {gpu}, and no calibration is given"
    return (
        f"needs a measurement on {gpu}; the calibration is of {shelf.own.gpu}, which does not"
        " judge it"
    )
