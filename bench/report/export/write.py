"""Write a result as csv, parquet, latex or a pack."""

import csv
import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.core.errors import EnvironmentFault, UserError
from bench.report.export.columns import COLUMNS, PAPER, rows_of
from bench.results.manifest import FILES, MANIFEST
from bench.results.store import check_directory, disk_faults, point_records, read_records

Rows = list[dict[str, Any]]
SPECIAL = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}
"""What LaTeX would take for its own."""


def export(directory: Path, form: str, out: Path) -> int:
    """Write the result's timed stages, or all that a pull request needs -> rows or files written.

    Raises UserError for a form that there is not and for a result without a timed stage,
    EnvironmentFault for a disk or a library that is missing."""
    if form not in FORMS:
        raise UserError(f"--to {form!r} is not one of {', '.join(FORMS)}")
    return FORMS[form](directory, out)


def _rows(directory: Path) -> Rows:
    rows = rows_of(point_records(read_records(directory)))
    if not rows:
        raise UserError(f"{directory}: no stage was timed")
    return rows


def _csv(directory: Path, out: Path) -> int:
    rows, text = _rows(directory), io.StringIO()
    writer = csv.DictWriter(text, list(COLUMNS), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with disk_faults(out, measured=False):
        out.write_text(text.getvalue(), encoding="utf-8")
    return len(rows)


def _parquet(directory: Path, out: Path) -> int:
    """Each column's words are its field's metadata."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise EnvironmentFault(
            "--to parquet needs pyarrow: pip install 'ldt-bench[parquet]'"
        ) from None
    rows = _rows(directory)
    made = pyarrow.Table.from_pylist(rows)
    fields = [made.schema.field(name).with_metadata({"doc": COLUMNS[name]}) for name in COLUMNS]
    with disk_faults(out, measured=False):
        parquet.write_table(made.cast(pyarrow.schema(fields)), out)
    return len(rows)


def _latex(directory: Path, out: Path) -> int:
    """A booktabs table of the paper's columns."""
    rows = _rows(directory)
    numbers = {name for name in PAPER if name.endswith("_s") or name == "flops"}
    align = "".join("r" if name in numbers else "l" for name in PAPER)
    lines = [rf"\begin{{tabular}}{{{align}}}", r"\toprule"]
    lines += [_latex_line(PAPER), r"\midrule"]
    for row in rows:
        cells = [f"{row[n]:.4g}" if n in numbers else str(row[n]) for n in PAPER]
        lines.append(_latex_line(cells))
    lines += [r"\bottomrule", r"\end{tabular}"]
    with disk_faults(out, measured=False):
        out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(rows)


def _latex_line(cells: Any) -> str:
    escaped = ("".join(SPECIAL.get(c, c) for c in str(cell)) for cell in cells)
    return " & ".join(escaped) + r" \\"


def _pack(directory: Path, out: Path) -> int:
    """The files that figures rest on, and the report's words, in one archive.  Raises UserError
    where `verify` finds that something differs: it is not to be contributed."""
    from bench.studies.verify.check import verify

    check_directory(directory)
    wrong = [finding for finding in verify(directory) if finding.verdict == "differs"]
    if wrong:
        raise UserError(
            f"{directory}: {wrong[0].check} differs ({wrong[0].said}); `ldt-bench verify"
            f" {directory}` has all"
        )
    names = [name for name in (*FILES, MANIFEST, "report.md") if (directory / name).is_file()]
    inside = Path("results", directory.absolute().parent.name, directory.absolute().name)
    with disk_faults(out, measured=False), tarfile.open(out, "w:gz") as archive:
        for name in names:
            archive.add(directory / name, str(inside / name))
    return len(names)


FORMS: dict[str, Callable[[Path, Path], int]] = {
    "csv": _csv,
    "parquet": _parquet,
    "latex": _latex,
    "pack": _pack,
}
ENDINGS = {"csv": ".csv", "parquet": ".parquet", "latex": ".tex", "pack": ".tar.gz"}
