"""A user's table as rows of text, however it was saved: with a byte-order mark, any of four
delimiters, other capitals in the header, lines of remarks."""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

from bench.core.errors import EnvironmentFault, UserError, nearest

MAX_BYTES = 64 * 2**20
DELIMITERS = ",;\t|"


def read_csv(path: Path, needed: Sequence[str], used: Sequence[str] = ()) -> list[dict[str, str]]:
    """Rows by column, the columns' names in small letters with underscores.

    needed: columns that must be there.  used: columns that are read where present.  Raises
    UserError for what is no such table, EnvironmentFault where reading is not allowed."""
    lines = _text(path, needed)
    delimiter = max(DELIMITERS, key=lines.split("\n", 1)[0].count)
    try:
        parsed = list(csv.reader(io.StringIO(lines), delimiter=delimiter))
    except csv.Error as error:
        raise UserError(f"{path}: not a CSV table: {error}") from None
    rows = [cells for cells in parsed if any(cell.strip() for cell in cells)]
    header = rows[0] if rows else []
    columns = [re.sub(r"[\s-]+", "_", name.strip().lower()) for name in header]
    _check_columns(path, columns, needed, used)
    return [dict(zip(columns, _padded(cells, len(columns)), strict=True)) for cells in rows[1:]]


def _padded(cells: list[str], columns: int) -> list[str]:
    """As many cells as there are columns: a short line lacks its last ones."""
    stripped = [cell.strip() for cell in cells[:columns]]
    return stripped + [""] * (columns - len(stripped))


def _text(path: Path, needed: Sequence[str]) -> str:
    """The file without its remarks (lines that begin with #)."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except PermissionError:
        raise EnvironmentFault(f"{path}: cannot be read: permission denied") from None
    except IsADirectoryError:
        raise UserError(f"{path}: expected a CSV file, found a directory") from None
    except OSError as error:
        beside = [p.name for p in path.parent.glob("*")] if path.parent.is_dir() else []
        reason = f"cannot be read: {error.strerror}"
        raise UserError(f"{path}: {reason}{nearest(path.name, beside)}") from None
    if len(data) > MAX_BYTES:
        limit = MAX_BYTES // 2**20
        raise UserError(f"{path}: expected a table, found a file of over {limit} MiB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path}: expected a CSV table in UTF-8, found other bytes") from None
    if not text.strip() or "\0" in text:
        found = "a binary file" if text.strip() else "an empty file"
        raise UserError(
            f"{path}: expected a CSV with the columns {' '.join(needed)}, found {found}"
        )
    return "\n".join(line for line in text.splitlines() if not line.startswith("#")).lstrip()


def _check_columns(
    path: Path, columns: Sequence[str], needed: Sequence[str], used: Sequence[str]
) -> None:
    missing = [name for name in needed if name not in columns]
    if missing and len(missing) == len(needed):
        raise UserError(
            f"{path}: expected a header with the columns {' '.join(needed)};"
            " the first line has none of the columns"
        )
    if missing:
        others = [column for column in columns if column not in needed]
        meant = [hint for name in missing if (hint := nearest(name, others))]
        also = f"; used where present: {' '.join(used)}" if used else ""
        raise UserError(
            f"{path}: no column {', '.join(missing)}{''.join(meant[:1])}"
            f" (expected: {' '.join(needed)}{also})"
        )
    doubled = sorted({c for c in columns if c in (*needed, *used) and columns.count(c) > 1})
    if doubled:
        raise UserError(f"{path}: expected each column once, found two called {', '.join(doubled)}")
