"""A record's point as this version knows it: a newer version's fields are left aside, a broken
point leaves its record out."""

import copy
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench.core.errors import UserError
from bench.core.messages import first_problem
from bench.core.specs.point import Point
from bench.results.records import CeilingsRecord, PointRecord

UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
MOST = 100
"""Unknown fields that are looked for."""


def all_readable(
    records: Iterable[PointRecord | CeilingsRecord], directory: Path
) -> list[PointRecord | CeilingsRecord]:
    """Those that `readable` gives.  Raises UserError where it gives none."""
    kept = [known for record in records if (known := readable(record)) is not None]
    if not kept:
        raise UserError(f"{directory}: none of its records can be read")
    return kept


def readable(record: PointRecord | CeilingsRecord) -> PointRecord | CeilingsRecord | None:
    """The record with points that `Point` takes; None, with a warning, where its own is broken.  A
    baseline's that is broken costs the comparison."""
    if isinstance(record, CeilingsRecord):
        return record
    try:
        point = known_part(record.point, record.label)
    except ValueError as error:
        warnings.warn(f"left out: {record.label}: its point is damaged: {error}", stacklevel=2)
        return None
    changed: dict[str, Any] = {} if point is record.point else {"point": point}
    if record.against is not None:
        try:
            base = known_part(record.against.point, record.label)
        except ValueError as error:
            said = f"left out: {record.label}: the point of its baseline is damaged: {error}"
            warnings.warn(said, stacklevel=2)
            changed["against"] = None
        else:
            if base is not record.against.point:
                changed["against"] = record.against.model_copy(update={"point": base})
    return record.model_copy(update=changed) if changed else record


def known_part(data: dict[str, Any], label: str) -> dict[str, Any]:
    """The same where this version knows every field; else without the unknown ones, with a warning.
    Raises ValueError where it is no point."""
    known, dropped = data, []
    for _ in range(MOST):
        try:
            Point.model_validate(known)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            if first["type"] not in UNKNOWN:
                raise ValueError(first_problem(error)) from None
            if known is data:
                known = copy.deepcopy(data)
            dropped.append(_drop(known, first["loc"]))
        else:
            break
    if dropped:
        said = f"{label}: fields of a newer version are ignored: {', '.join(dropped)}"
        warnings.warn(said, stacklevel=2)
    return known


def _drop(data: Any, path: tuple[Any, ...]) -> str:
    """Take a field out; pydantic's path has the tags of unions in it, which the data have not."""
    *parents, leaf = path
    taken = []
    for part in parents:
        is_index = isinstance(data, (list, tuple)) and isinstance(part, int) and part < len(data)
        if is_index or (isinstance(data, dict) and part in data):
            data = data[part]
            taken.append(str(part))
    if not isinstance(data, dict) or leaf not in data:
        raise ValueError(f"{'.'.join(map(str, path))}: unknown key")
    del data[leaf]
    return ".".join([*taken, str(leaf)])
