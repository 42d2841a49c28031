"""report.md, report.html and figures/ of a result, from its records and calibration.json."""

from pathlib import Path

import jinja2

from bench.core.errors import one_line
from bench.report.figures import all as figures
from bench.report.figures.drawing import FOR_PRINT, FORMATS, Picture
from bench.report.html import write_page
from bench.report.result import Result, read_result
from bench.report.tables import ablations as ablation_tables
from bench.report.tables import device as device_tables
from bench.report.tables.common import error_rows, gemm_ceiling, training_row
from bench.report.tables.common import quantity
from bench.results.store import disk_faults, write_whole


def write_report(directory: Path, *, for_print: bool = True) -> Path:
    """Write report.md, report.html and the figures -> report.md's path.  Raises UserError where the
    records or the calibration cannot be read.

    for_print: the figures as PDF too, which takes twice as long.  Without a calibration the report
    says so."""
    result = read_result(directory)
    with disk_faults(directory):
        pictures = figures.save_all(
            directory / "figures", result, FOR_PRINT if for_print else FORMATS
        )
        path = directory / "report.md"
        write_whole(path, markdown(result, pictures, for_print))
        write_page(result, pictures)
    return path


def markdown(result: Result, pictures: dict[str, Picture], for_print: bool) -> str:
    """The text of report.md."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bench.report", "."),
        autoescape=False,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["cell"] = lambda text: one_line(str(text)).replace("|", "\\|")
    return environment.get_template("report.md.j2").render(
        for_print=for_print,
        suite=result.suite,
        environment=result.environment,
        mixed=result.mixed,
        points=result.points,
        ceilings=result.ceilings,
        error_rows=error_rows,
        training_row=training_row,
        ablations=result.ablations,
        ablation=ablation_tables,
        gemm_ceiling=gemm_ceiling(result.ceilings) if result.ceilings else None,
        device=device_tables,
        throttling=lambda r, stage: device_tables.throttling((r.telemetry or {}).get(stage)),
        headline=result.headline,
        headline_missing=result.headline_missing,
        sentinel=result.sentinel,
        reference=result.reference,
        reference_missing=result.reference_missing,
        fits=result.fits,
        bars=result.bars,
        figures=pictures,
        known_suite=result.known_suite,
        command=result.command,
        quantity=quantity,
    )
