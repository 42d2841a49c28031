"""Verify a result: every figure that follows from others is made again."""

import shutil
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.calibrate.calibration import Calibration
from bench.calibrate.make import calibrate
from bench.calibrate.read import read_calibration
from bench.core.errors import UserError
from bench.results.manifest import hashes, read_manifest
from bench.results.records import PointRecord
from bench.results.store import CALIBRATION, RECORDS, SUITE, read_records
from bench.studies.verify.bounds import check_bounds, check_times
from bench.studies.verify.counts import check_counts
from bench.studies.verify.findings import Finding, differs, summed
from bench.studies.verify.inside import check_inside
from bench.studies.verify.timings import check_samples, check_timings

SAME, ALIKE = 0.01, 0.9
"""Of a predicted number; and of an error or the end of an interval, which bootstraps of few points
move by a third from process to process.  Kernels of another processor moved minutes per GPU-hour by
2e-4."""


def verify(directory: Path) -> list[Finding]:
    """Everything that can be held against something.  Raises UserError for what is no result."""
    records = read_records(directory)  # the schema
    points = [record for record in records if isinstance(record, PointRecord)]
    found = [Finding("schema", "agrees", n=len(records))]
    found += _manifest(directory)
    found += check_timings(records)
    found += check_samples(directory, records)
    found += check_counts(points)
    found += check_inside(records)
    found += check_times(records)
    found += check_bounds(records)
    found += _calibration(directory)
    return found


def _manifest(directory: Path) -> Iterator[Finding]:
    manifest = read_manifest(directory)
    if manifest is None:
        yield Finding("hashes", "not checked", said="no manifest.json: an older result")
        return
    now = hashes(directory)
    every = dict.fromkeys([*manifest.sha256, *now])
    wrong = [name for name in every if manifest.sha256.get(name) != now.get(name)]
    for name in wrong:
        was, has = manifest.sha256.get(name), now.get(name)
        said = "is not there" if has is None else "is new" if was is None else "was changed"
        yield differs("hashes", name, f"{said} since the manifest was written")
    if not wrong:
        yield Finding("hashes", "agrees", n=len(every))


def _calibration(directory: Path) -> Iterator[Finding]:
    """Fitted anew in another directory, and held to what is stored."""
    check = "calibration"
    if not (directory / CALIBRATION).is_file():
        yield Finding(check, "not checked", said="the result has none")
        return
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in (RECORDS, SUITE):
            shutil.copy(directory / name, folder)
        try:
            stored, made = read_calibration(directory), calibrate(Path(folder))
        except UserError as error:
            yield differs(check, CALIBRATION, str(error))
            return
    then, now = _figures(stored), _figures(made)
    names = dict.fromkeys([*then, *now])
    yield from summed(check, len(names), _unlike(then, now))


@dataclass(frozen=True)
class _Figure:
    """A number of a calibration, and how far a second fit of the same records may end from it."""

    value: float
    near: float


def _figures(calibration: Calibration) -> dict[str, _Figure]:
    """What a reader takes from it.  Bootstrap draws and residuals are behind the intervals."""
    found = {}
    for name, fit in calibration.fits.items():
        for ceiling, rate in fit.ceilings.items():
            found[f"{name}, {ceiling}"] = _Figure(rate, 0.0)
        for parameter, p in fit.parameters.items():
            if p.value is not None:
                half = (p.high - p.low) / 2
                found[f"{name}, {parameter}"] = _Figure(p.value, max(half, SAME * p.value))
        found[f"{name}, fitted stages"] = _Figure(len(fit.stages), 0.0)
        if fit.leave_one_out is not None:
            mean = fit.leave_one_out.mean
            found[f"{name}, held-out error"] = _Figure(mean, ALIKE * mean)
    headline, reference = calibration.headline, calibration.reference
    shown = {
        "headline": headline.minutes_per_gpu_hour if headline else None,
        "reference": reference.minutes if reference else None,
    }
    for name, minutes in shown.items():
        if minutes is not None:
            found[f"{name}, minutes"] = _Figure(minutes.value, SAME * minutes.value)
            found[f"{name}, low"] = _Figure(minutes.low, ALIKE * minutes.low)
            found[f"{name}, high"] = _Figure(minutes.high, ALIKE * minutes.high)
    return found


def _unlike(then: dict[str, _Figure], now: dict[str, _Figure]) -> Iterator[Finding]:
    for name in dict.fromkeys([*then, *now]):
        old, new = then.get(name), now.get(name)
        if old is None or new is None:
            missing = "stored" if old is None else "fitted anew"
            yield differs("calibration", name, f"is not {missing}")
        elif abs(old.value - new.value) > new.near:
            yield differs("calibration", name, f"{old.value:.6g} / {new.value:.6g}")
