"""Counted work of a table's rows, kept on disk: a count takes about a second, and a table repeats sizes.

The cache is one JSON file under XDG_CACHE_HOME (~/.cache by default), named after a hash of the package's version, the
counting code and diffusers' version, so that no count outlives the code that made it.  Without a place to write it, nothing
is kept.
"""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.calibrate.published_table import Row
from bench.core.load import load
from bench.core.shipped import counting_code
from bench.core.spec import Model, fingerprint

if TYPE_CHECKING:
    from bench.count.at_depth import ClassWork


class CountCache:
    """A mapping from a fingerprint to counted work, saved after every new count."""

    def __init__(self, folder: Path | None = None):
        root = folder or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ldt-bench"
        self.file = root / f"counts-{code_version()}.json"
        self._known: dict[str, dict[str, int]] = {}
        with contextlib.suppress(OSError, ValueError):
            known = json.loads(self.file.read_text(encoding="utf-8"))
            self._known = known if isinstance(known, dict) else {}

    def numbers(self, what: object, count: Callable[[], dict[str, int]]) -> dict[str, int]:
        """What was counted for `what`, or is now."""
        key = fingerprint(what)
        kept = self._known.get(key)
        if isinstance(kept, dict) and kept and all(type(v) is int and v >= 0 for v in kept.values()):
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


@dataclass(frozen=True)
class Counted:
    """What a row's latency holds."""

    forward: "ClassWork"
    """Of one denoiser forward."""
    vae_flops: int
    text: "ClassWork"


def count_rows(rows: list[Row], cache: CountCache, progress: Callable[[str], None]) -> list[Counted]:
    """In the order of the rows."""
    return [_count(row, cache, progress) for row in rows]


def _count(row: Row, cache: CountCache, progress: Callable[[str], None]) -> Counted:
    from bench.count.at_depth import ClassWork, decode_flops, encode_flops, forward_work, text_work

    model = load(Model, row.model)
    parts: dict[str, Any] = model.model_dump(mode="json")
    size = row.frames, row.height, row.width
    progress(f"counting {row.model} at {row.width}x{row.height}, {row.frames} frames")
    shape = model.vae.latent_shape(*size)
    forward = cache.numbers(["forward", parts["denoiser"], shape], lambda: asdict(forward_work(model.denoiser, shape)))
    vae_flops = 0
    if row.scope.vae:
        vae_flops = cache.numbers(["decode", parts["vae"], size], lambda: {"flops": decode_flops(model.vae, *size)})["flops"]
        if row.encodes_clip:
            encoded = cache.numbers(["encode", parts["vae"], size], lambda: {"flops": encode_flops(model.vae, *size)})
            vae_flops += encoded["flops"]
    text = text_work(model.text_encoders, row.prompts) if row.scope.text else ClassWork()
    return Counted(ClassWork(**forward), vae_flops, text)
