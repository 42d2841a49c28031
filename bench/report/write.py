"""Write report.md, report.html and figures/ of a result."""

from pathlib import Path

from bench.report.contents import contents
from bench.report.figures.drawing import FOR_PRINT, FORMATS
from bench.report.figures.registry import save_all
from bench.report.html import page
from bench.report.markdown import markdown
from bench.report.result import read_result
from bench.results.store import PAGE, disk_faults, write_whole


def write_report(directory: Path, *, for_print: bool = True) -> Path:
    """From the records and calibration.json of a result -> the path of report.md.

    for_print: the figures as PDF too, which takes twice as long.  Without a calibration the report
    says so.  Raises UserError where the records or the calibration cannot be read."""
    result = read_result(directory)
    formats = FOR_PRINT if for_print else FORMATS
    path = directory / "report.md"
    with disk_faults(directory):
        pictures = save_all(directory / "figures", result, formats)
        shown = contents(result, pictures)
        write_whole(path, markdown(shown, pictures, for_print))
        write_whole(directory / PAGE, page(shown, pictures))
    return path
