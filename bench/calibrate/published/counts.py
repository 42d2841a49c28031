"""Counted work of a table's rows, kept on disk: a count takes about a second, and a table repeats
sizes."""

from collections.abc import Callable
from dataclasses import dataclass

from bench.calibrate.published.table import Row
from bench.core.load import load
from bench.core.specs.model import Model
from bench.count.cache import CountCache
from bench.count.work import decode_flops, encode_flops, forward_work, text_work
from bench.results.counts import ClassWork


@dataclass(frozen=True)
class Counted:
    """What a row's latency holds."""

    forward: ClassWork
    """Of one denoiser forward."""
    vae_flops: int
    text: ClassWork


def count_rows(
    rows: list[Row], cache: CountCache, progress: Callable[[str], None]
) -> list[Counted]:
    """In the order of the rows."""
    return [_count(row, cache, progress) for row in rows]


def _count(row: Row, cache: CountCache, progress: Callable[[str], None]) -> Counted:
    model, size = load(Model, row.model), (row.frames, row.height, row.width)
    progress(f"counting {row.model} at {row.width}x{row.height}, {row.frames} frames")
    vae_flops = 0
    if row.scope.vae:
        vae_flops += decode_flops(model, size, cache)
        if row.encodes_clip:
            vae_flops += encode_flops(model, size, cache)
    text = text_work(model.text_encoders, row.prompts) if row.scope.text else ClassWork()
    return Counted(forward_work(model, size, cache), vae_flops, text)
