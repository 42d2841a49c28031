"""Counts of points, kept on disk: counting a 20 B model takes seconds, and every calibration asks
for the same one.

JSON files under XDG_CACHE_HOME (~/.cache by default), named after a hash of the package's version,
the counting code and diffusers' version, so that no count outlives the code that made it.  Without
a place to write them, nothing is kept.
"""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from bench.core.specs.base import fingerprint
from bench.core.specs.point import Point
from bench.count.shipped import counting_code, shipped_count, shipped_work
from bench.results.counts import StageCount


class PointCount(BaseModel):
    """What predicting a point needs of its count."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stages: dict[str, StageCount]
    params: dict[str, int]


def counted(point: Point) -> PointCount:
    """As shipped, else from disk, else counted now (imports torch) and kept.  Raises as
    bench.count.point.count_point."""
    point = point.as_counted
    shipped = shipped_count(point)
    if shipped is not None:
        return PointCount(stages=shipped.stages, params=shipped.params)
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ldt-bench"
    file = root / f"points-{code_version()}" / f"{point.fingerprint}.json"
    with contextlib.suppress(OSError, ValidationError):
        return PointCount.model_validate_json(file.read_bytes())
    from bench.count.point import count_point

    count = count_point(point)
    kept = PointCount(stages=count.stages, params=count.params)
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(kept.model_dump_json())
        os.replace(name, file)
    return kept


class CountCache:
    """A mapping from a fingerprint to counted work, saved after every new count."""

    def __init__(self, folder: Path | None = None):
        root = (
            folder or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ldt-bench"
        )
        self.file = root / f"counts-{code_version()}.json"
        self._known: dict[str, dict[str, int]] = {}
        with contextlib.suppress(OSError, ValueError):
            known = json.loads(self.file.read_text(encoding="utf-8"))
            self._known = known if isinstance(known, dict) else {}

    @staticmethod
    def key(what: object) -> str:
        """By which it is kept."""
        return fingerprint(what)

    def numbers(self, what: object, count: Callable[[], dict[str, int]]) -> dict[str, int]:
        """What was counted for `what` and is shipped or kept, or is counted now."""
        key = self.key(what)
        kept = shipped_work().get(key) or self._known.get(key)
        if (
            isinstance(kept, dict)
            and kept
            and all(type(v) is int and v >= 0 for v in kept.values())
        ):
            return kept
        self._known[key] = count()
        with contextlib.suppress(OSError):
            self._save()
        return self._known[key]

    def _save(self) -> None:
        """Replaced as a whole: two commands at once lose a count at most."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self.file.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(self._known, file)
        os.replace(name, self.file)


def code_version() -> str:
    """Sixteen hex digits of everything that a count depends on."""
    digest = hashlib.sha256()
    for package in ("ldt-bench", "diffusers"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            digest.update(metadata.version(package).encode())
    digest.update(counting_code().encode())
    return digest.hexdigest()[:16]
