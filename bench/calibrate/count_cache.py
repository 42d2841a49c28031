"""Counts of points, kept on disk: counting a 20 B model takes seconds, and every calibration asks for the same one.

One JSON file a point under XDG_CACHE_HOME (~/.cache by default), in a folder named after a hash of the counting code, so that
no count outlives the code that made it.  Without a place to write it, nothing is kept.
"""

import contextlib
import os
import tempfile
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from bench.calibrate.published_counts import code_version
from bench.core.records import StageCount
from bench.core.shipped import shipped_count
from bench.core.spec import Point


class PointCount(BaseModel):
    """What predicting a point needs of its count."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stages: dict[str, StageCount]
    params: dict[str, int]


def counted(point: Point) -> PointCount:
    """As shipped, else from disk, else counted now (imports torch) and kept.  Raises as bench.count.count.count_point."""
    shipped = shipped_count(point)
    if shipped is not None:
        return PointCount(stages=shipped.stages, params=shipped.params)
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ldt-bench"
    file = root / f"points-{code_version()}" / f"{point.fingerprint}.json"
    with contextlib.suppress(OSError, ValidationError):
        return PointCount.model_validate_json(file.read_bytes())
    from bench.count.count import count_point

    count = count_point(point)
    kept = PointCount(stages=count.stages, params=count.params)
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(kept.model_dump_json())
        os.replace(name, file)
    return kept
