"""A card's own prediction beside what others published of it."""

from pathlib import Path
from typing import Any

from bench.calibrate.calibration import Calibration
from bench.calibrate.predict import Estimate
from bench.core.errors import UserError
from bench.core.specs.point import Point


def said_beside(
    point: Point, own: Estimate, calibration: Calibration, directory: Path
) -> tuple[dict[str, Any], list[str]]:
    """What the estimate rests on and how far published evidence lies from it: for --json, and in
    lines."""
    document = _of_records(own, calibration, directory)
    lines = [f"fitted to the records of {directory}" + _error(own)]
    published = _published(point, own.gpu)
    if published is None:
        return {"evidence": document, "published_evidence": None, "together": None}, lines
    from bench.report.forecasts import forecast_document, headline, resting_on

    faster = published.video_s.value / own.video_s.value - 1
    word = "faster" if faster > 0 else "slower"
    inside = published.video_s.low <= own.video_s.value <= published.video_s.high
    lines += [
        f"published evidence says {headline(published)}; {resting_on(published)}",
        f"your card is {abs(faster):.0%} {word} than what others published,"
        f" {'inside' if inside else 'outside'} its 90 % interval",
    ]
    beside = forecast_document(published) | {"own_is_faster_by": faster}
    found = {"evidence": document, "published_evidence": beside, "together": None}
    both = _together(point, own.gpu, directory)
    if both is not None:
        lines.append(f"both fitted together: {headline(both)}")
        found["together"] = {"video_s": both.video_s.as_dict(), "provenance": both.provenance}
    return found, lines


def _of_records(own: Estimate, calibration: Calibration, directory: Path) -> dict[str, Any]:
    stages = sum(len(fit.stages) for fit in calibration.fits.values())
    return {
        "kind": "records",
        "gpu": calibration.gpu,
        "n": stages,
        "sources": [str(directory)],
        "heldout": own.heldout_error,
    }


def _error(own: Estimate) -> str:
    if own.heldout_error is None:
        return ""
    return f" (held-out error: {own.heldout_error['mean']:.1%} for another point)"


def _published(point: Point, gpu: str) -> Any | None:
    """The same point by published evidence; None for a card or a recipe that it says nothing of."""
    from bench.calibrate.evidence.forecast import forecast

    try:
        return forecast(point, gpu)
    except UserError:
        return None


def _together(point: Point, gpu: str, directory: Path) -> Any | None:
    """The point by the card's records and the published rows at once; None where the result is of
    another card, or has no step in 16 bits."""
    from bench.calibrate.evidence.forecast import forecast
    from bench.calibrate.evidence.own import OWN, own_observations, together
    from bench.results.store import on_one_card, point_records, read_records

    records = on_one_card(point_records(read_records(directory)))
    own = [o for o in own_observations(records) if o.gpu == gpu]
    if not own:
        return None
    return forecast(point, gpu, posterior=together(own), source=OWN)
