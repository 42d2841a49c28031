"""report.md and figures/ of a result, from its records and calibration.json."""

from pathlib import Path
from statistics import median

import jinja2

from bench.calibrate.ablations import ablations
from bench.calibrate.analytic import Assumptions
from bench.calibrate.calibrate import headline_of
from bench.calibrate.calibration import Calibration, read_calibration
from bench.calibrate.plan_time import price_of
from bench.calibrate.waterfall import waterfall
from bench.core.errors import one_line
from bench.core.load import load, names
from bench.core.records import CeilingsRecord, PointRecord
from bench.core.spec import Gpu
from bench.core.store import CALIBRATION, ceilings_record, disk_faults, point_records, read_records, read_suite, write_whole
from bench.report import ablations as ablation_tables
from bench.report import device_tables, figures
from bench.report.tables import error_rows, gemm_ceiling, quantity


def sentinel_spread(records: list[PointRecord | CeilingsRecord]) -> tuple[float, float, int] | None:
    """Median seconds of the sentinel product, its largest departure from that as a share, readings; None without any."""
    readings = [s for r in records if r.sentinel for s in (r.sentinel.before_s, r.sentinel.after_s)]
    if not readings:
        return None
    middle = median(readings)
    return middle, max(abs(s / middle - 1) for s in readings), len(readings)


def environments_mixed(records: list[PointRecord | CeilingsRecord]) -> list[str]:
    """In what the records' environments differ from the last one's: nothing, unless a run was resumed elsewhere."""
    return list(dict.fromkeys(d for r in records for d in r.environment.differences(records[-1].environment)))


def write_report(directory: Path) -> Path:
    """Write report.md -> its path.  Raises UserError where the records or the calibration cannot be read.

    A result without a calibration gets a report that says so."""
    records = read_records(directory)
    suite = read_suite(directory)
    calibration: Calibration | None = read_calibration(directory) if (directory / CALIBRATION).is_file() else None
    points = point_records(records)
    fit = calibration.fit_for(None) if calibration else None
    headline, missing = headline_of(directory, calibration)
    reference = calibration.reference if calibration else None
    bars = waterfall(Assumptions(), reference)
    gpu = records[-1].environment.gpu
    rows = ablations(points, price_of(load(Gpu, gpu) if gpu in names("gpus") else None, None))
    with disk_faults(directory):
        captions = figures.save_all(directory / "figures", points, fit, bars, rows=rows)
        environment = jinja2.Environment(loader=jinja2.PackageLoader("bench.report", "."), autoescape=False,
                                         undefined=jinja2.StrictUndefined)
        environment.filters["cell"] = lambda text: one_line(str(text)).replace("|", "\\|")
        ceilings = ceilings_record(records)
        text = environment.get_template("report.md.j2").render(
            suite=suite, environment=records[-1].environment, mixed=environments_mixed(records), points=points,
            ceilings=ceilings,
            gemm_ceiling=gemm_ceiling(ceilings) if ceilings else None,
            device=device_tables, throttling=lambda r, stage: device_tables.throttling((r.telemetry or {}).get(stage)),
            headline=headline, headline_missing=missing,
            sentinel=sentinel_spread(records), reference=reference,
            reference_missing=calibration.reference_missing if calibration else "not calibrated",
            fits=list(calibration.fits.values()) if calibration else [], bars=bars, figures=captions,
            ablations=rows, ablation=ablation_tables, known_suite=suite.name in names("suites"), error_rows=error_rows,
            quantity=lambda q: quantity(q.model_dump(include={"value", "low", "high"})),
        )
        path = directory / "report.md"
        write_whole(path, text)
    return path
