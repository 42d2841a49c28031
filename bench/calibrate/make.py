"""From a result's records to its calibration: a fit for the recipes of the same rates, the
headline, and the reference point of the chain."""

import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from bench.calibrate.calibration import Calibration, Fit, fit_serving
from bench.calibrate.cards import OFF, Cards, cards_of, typical_ceilings
from bench.calibrate.fit_pool import fit_pool
from bench.calibrate.fitting.accuracy import TooFewPoints
from bench.calibrate.headline import headline, reference
from bench.calibrate.pools import Pool, pools
from bench.calibrate.read import read_calibration
from bench.core.errors import UserError
from bench.core.load import suite_points
from bench.core.specs.suite import Suite
from bench.results.environment import cards_in
from bench.results.records import FINISHED, CeilingsRecord, PointRecord, Record
from bench.results.store import (
    CALIBRATION,
    card_ceilings,
    ceilings_record,
    disk_faults,
    on_one_card,
    point_records,
    read_records,
    read_suite,
    write_whole,
)
from bench.results.video import (
    MEASURED,
)

T = TypeVar("T")


def calibrate(directory: Path) -> Calibration:
    """Fit a result's records, those of the same rates together (bench.calibrate.pools), and write
    calibration.json.

    Raises UserError where records are missing, of several devices, or too few, naming what would
    supply them."""
    records = read_records(directory)
    devices = {(r.environment.gpu, r.environment.device_name) for r in records}
    if len(devices) > 1:
        raise UserError(
            f"{directory}: records of several devices:"
            f" {', '.join(sorted(name for _, name in devices))}; calibrate one at a time"
        )
    compared = cards_of(records)
    _say_cards(directory, records, compared)
    (gpu, device_name), suite = devices.pop(), read_suite(directory)
    by_card = card_ceilings(records)
    ceilings = typical_ceilings(by_card) if len(by_card) > 1 else ceilings_record(records)
    if ceilings is None:
        raise UserError(f"{directory}: {_why_no_ceilings(records)}")
    with disk_faults(directory):
        (directory / CALIBRATION).unlink(
            missing_ok=True
        )  # where this one fails, an older one would be a lie
    points = on_one_card(point_records(records))
    measured = [record for record in points if record.outcome in MEASURED]
    if not measured:
        raise UserError(
            f"{directory}: no point was measured with outcome ok; `ldt-bench report {directory}`"
            " says why"
        )
    fits, unfitted = _fit_pools(pools(measured), ceilings, compared)
    if fit_serving(fits, suite.headline.recipe) is None:
        why = unfitted.get(suite.headline.recipe, "none of its points was measured")
        raise UserError(
            f"{directory}: recipe {suite.headline.recipe}: {why};"
            f" {_what_would_help(suite, records, directory)}"
        )
    power = stage_power(points)
    calibration = Calibration(
        gpu=gpu,
        device_name=device_name,
        suite=suite.name,
        headline_recipe=suite.headline.recipe,
        fits=fits,
        power_w=power.get("denoise_step"),
        stage_power_w=power,
        sentinel_s=sentinel(points),
        headline=None,
        headline_missing=None,
        reference=None,
        reference_missing=None,
    )
    calibration = _with_headline(calibration, suite, records)
    with disk_faults(directory):
        write_whole(directory / CALIBRATION, calibration.model_dump_json(indent=1))
    return calibration


def _say_cards(directory: Path, records: Sequence[Record], compared: Cards) -> None:
    """Warn of several cards, by name where one is far from the typical one."""
    if off := [
        f"{card.id} ({card.factor.value - 1:+.0%} seconds)" for card in compared.cards if card.off
    ]:
        warnings.warn(
            f"{directory}: further than {OFF:.0%} from the typical card: {', '.join(off)};"
            f" `ldt-bench cards {directory}` has all",
            stacklevel=3,
        )
    cards = cards_in(r.environment for r in records)
    if cards and not compared.cards:
        warnings.warn(
            f"{directory}: measured on {cards}; no point was measured on two of them, so they"
            " cannot be compared",
            stacklevel=3,
        )


def _with_headline(
    calibration: Calibration, suite: Suite, records: list[PointRecord | CeilingsRecord]
) -> Calibration:
    """Its headline and reference point, or why it has none."""
    shown, headline_missing = _or_reason(
        lambda: headline(suite, point_records(records), calibration)
    )
    story, reference_missing = _or_reason(lambda: reference(calibration))
    return calibration.model_copy(
        update={
            "headline": shown,
            "headline_missing": headline_missing,
            "reference": story,
            "reference_missing": reference_missing,
        }
    )


def _or_reason(make: Callable[[], T]) -> tuple[T | None, str | None]:
    try:
        return make(), None
    except UserError as error:
        return None, str(error)


def _fit_pools(
    pooled: list[Pool], ceilings: CeilingsRecord, compared: Cards
) -> tuple[dict[str, Fit], dict[str, str]]:
    """-> fits, each under its first recipe's name (which a second one of that name has with what
    tells it apart), and for each recipe of a pool that cannot be fitted the reason."""
    fits: dict[str, Fit] = {}
    unfitted: dict[str, str] = {}
    for pool in pooled:
        try:
            made = fit_pool(pool, ceilings, compared)
        except (TooFewPoints, UserError) as error:
            unfitted |= dict.fromkeys(pool.recipes, str(error))
            continue
        name = made.recipe
        if name in fits:
            name += f" ({', '.join(filter(None, (pool.key.models, pool.key.attention)))})"
        fits[name] = made
    return fits, unfitted


def _why_no_ceilings(records: list[PointRecord | CeilingsRecord]) -> str:
    tried = [r for r in records if isinstance(r, CeilingsRecord)]
    if not tried:
        return "no ceilings were measured; run a suite with `ceilings: true`, as smoke has"
    return (
        f"the ceilings ended in {tried[-1].outcome}: {tried[-1].reason}; without them nothing is"
        " calibrated"
    )


def _what_would_help(
    suite: Suite, records: list[PointRecord | CeilingsRecord], directory: Path
) -> str:
    """Resuming, where it would measure something; else more points."""
    measured = {r.fingerprint for r in records if r.outcome in FINISHED}
    try:
        missing = any(point.fingerprint not in measured for point in suite_points(suite))
    except UserError as error:
        return f"its suite cannot be loaded any more ({error})"
    if missing:
        return f"`ldt-bench run --resume {directory}` measures what is missing"
    return "every point of the suite was tried: add points of more sizes or stages to it"


def load_or_calibrate(directory: Path) -> Calibration:
    """A result's calibration; made from its records where it is not there yet.  Raises
    UserError."""
    if directory.is_dir() and not (directory / CALIBRATION).is_file():
        return calibrate(directory)
    return read_calibration(directory)


def sentinel(records: list[PointRecord]) -> float | None:
    """Median seconds of the sentinel product around these records; None where none was timed."""
    readings = [s for r in records if r.sentinel for s in (r.sentinel.before_s, r.sentinel.after_s)]
    return float(np.median(readings)) if readings else None


def stage_power(records: list[PointRecord]) -> dict[str, float]:
    """Watts by stage, the mean of its points: energy over the time it took where the counter was
    read, else the median of the power readings."""
    by_stage: dict[str, list[float]] = defaultdict(list)
    for record in records:
        for stage, t in (record.telemetry or {}).items():
            if t.energy is not None:
                by_stage[stage].append(t.energy.power_w)
            elif t.power_w is not None and t.power_w.median > 0:
                by_stage[stage].append(t.power_w.median)
    return {stage: sum(watts) / len(watts) for stage, watts in by_stage.items()}
