"""Counted work of a table's rows, kept on disk: a count takes about a second, and a table repeats
sizes."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from bench.calibrate.published.table import Row
from bench.core.load import load
from bench.core.specs.model import Model
from bench.count.cache import CountCache

if TYPE_CHECKING:
    from bench.count.depth import ClassWork


@dataclass(frozen=True)
class Counted:
    """What a row's latency holds."""

    forward: "ClassWork"
    """Of one denoiser forward."""
    vae_flops: int
    text: "ClassWork"


def count_rows(
    rows: list[Row], cache: CountCache, progress: Callable[[str], None]
) -> list[Counted]:
    """In the order of the rows."""
    return [_count(row, cache, progress) for row in rows]


def _count(row: Row, cache: CountCache, progress: Callable[[str], None]) -> Counted:
    from bench.count.depth import ClassWork, decode_flops, encode_flops, forward_work, text_work

    model = load(Model, row.model)
    parts: dict[str, Any] = model.model_dump(mode="json")
    size = row.frames, row.height, row.width
    progress(f"counting {row.model} at {row.width}x{row.height}, {row.frames} frames")
    shape = model.vae.latent_shape(*size)
    forward = cache.numbers(
        ["forward", parts["denoiser"], shape], lambda: asdict(forward_work(model.denoiser, shape))
    )
    vae_flops = 0
    if row.scope.vae:
        vae_flops = cache.numbers(
            ["decode", parts["vae"], size], lambda: {"flops": decode_flops(model.vae, *size)}
        )["flops"]
        if row.encodes_clip:
            encoded = cache.numbers(
                ["encode", parts["vae"], size], lambda: {"flops": encode_flops(model.vae, *size)}
            )
            vae_flops += encoded["flops"]
    text = text_work(model.text_encoders, row.prompts) if row.scope.text else ClassWork()
    return Counted(ClassWork(**forward), vae_flops, text)
