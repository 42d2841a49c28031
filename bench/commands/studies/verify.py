"""Can a result be believed?  verify."""

from pathlib import Path
from typing import Annotated

import typer

from bench.commands.parts.options import Json
from bench.commands.parts.output import print_json, show

ResultDirs = Annotated[
    list[Path], typer.Argument(metavar="RESULT_DIR...", help="Made by `ldt-bench run` or `merge`.")
]


def verify(result_dirs: ResultDirs, as_json: Json = False) -> int | None:
    """Make every figure of a result again, and say what agrees.

    Medians, intervals and outcomes from the raw samples; FLOPs and tokens from the point; the fit
    from the records; rates, power and memory against the datasheet; times of day; the hashes of the
    manifest. Exit code 1 where something differs."""
    from bench.report.progress import Spinner
    from bench.report.tables.comparison import findings_document, findings_table
    from bench.studies.verify.check import verify as verify_result

    documents, wrong = [], False
    for directory in result_dirs:
        with Spinner(f"verifying {directory}"):
            found = verify_result(directory)
        wrong = wrong or any(finding.verdict == "differs" for finding in found)
        documents.append(findings_document(directory, found))
        if not as_json:
            show(findings_table(str(directory), found))
    if as_json:
        print_json(documents[0] if len(documents) == 1 else {"results": documents})
    return 1 if wrong else None
