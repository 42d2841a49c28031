"""What did a run find?  report."""

import typer

from bench.commands.parts.options import Json, ResultDir
from bench.commands.parts.output import print_json


def report(result_dir: ResultDir, as_json: Json = False) -> None:
    """Write report.html, report.md and the figures of a result anew."""
    from bench.report.progress import Spinner
    from bench.report.write import write_report
    from bench.results.store import PAGE

    with Spinner("drawing the report"):
        path = write_report(result_dir)
    page = str(path.with_name(PAGE))
    print_json({"report": str(path), "report_html": page}) if as_json else typer.echo(page)
