"""Observations of published tables, of own records, and of a point that is to be predicted."""

import re
from collections.abc import Callable, Sequence
from importlib import resources

from bench.calibrate.evidence.observation import Observation
from bench.calibrate.published.counts import Counted, count_rows
from bench.calibrate.published.names import Unusable
from bench.calibrate.published.table import PublishedTable, Row, Skipped, read_table
from bench.core.load import load
from bench.core.specs.gpu import Gpu
from bench.core.specs.model import Model
from bench.count.cache import CountCache

TABLES = ("published_latency.csv", "published_multi_gpu.csv")  # within configs/reference
MOST_UTILISATION = 1.05  # of a datasheet's 16-bit rate, which a card's clock may pass by a little
REPOSITORY = re.compile(r"([\w.-]+/[\w.-]+?)(?=[@\s,]|$)")


def published_tables() -> list[PublishedTable]:
    """The tables that travel with the package, read."""
    folder = resources.files("configs") / "reference"
    return [read_table(folder / name) for name in TABLES]


def observations_of(
    table: PublishedTable,
    cache: CountCache,
    progress: Callable[[str], None],
    *,
    cards: bool = False,
) -> tuple[list[Observation], list[Skipped]]:
    """Every usable row, and those that no card can have run as described.  cards: the table's rows
    are on several, so that their seconds are held to no card's datasheet."""
    found, skipped = [], []
    for row, work in zip(table.rows, count_rows(table.rows, cache, progress), strict=True):
        try:
            observation = _of_row(row, work)
            if not cards:
                _check_possible(observation)
            found.append(observation)
        except Unusable as reason:
            skipped.append(Skipped(row.id, row.named, row.gpu, str(reason)))
    return found, skipped


def source_of(text: str) -> str:
    """Who says so: a repository's owner and name, else the first words."""
    match = REPOSITORY.search(text)
    return match.group(1) if match else " ".join(text.split()[:4]) or "unnamed"


def _of_row(row: Row, work: Counted) -> Observation:
    model = load(Model, row.model)
    tokens = model.denoiser.tokens(model.vae.latent_shape(row.frames, row.height, row.width))
    all_ = work.forward * row.forwards + work.text
    return Observation(
        id=row.id,
        gpu=row.gpu,
        model=row.model,
        named=row.named,
        source=source_of(row.source),
        grade=row.grade,
        guessed=row.guessed,
        frames=row.frames,
        height=row.height,
        width=row.width,
        tokens=tokens,
        forwards=row.forwards,
        seconds=row.latency_s,
        linear_flops=all_.linear_flops + all_.conv_flops,
        attention_flops=all_.attention_flops,
        vae_flops=work.vae_flops,
        elementwise_bytes=all_.elementwise_bytes,
        flops_per_token=(work.forward.linear_flops + work.forward.conv_flops) / tokens,
        stages=row.scope.per == "video" and row.scope.text,
        fast_attention=row.fast_attention,
        unfused=row.unfused,
        offloaded=row.offloaded,
        fp8=row.fp8,
    )


def _check_possible(o: Observation) -> None:
    """Raises Unusable for a row that is faster than its card can be: another size, skipped steps or
    fewer bits than it says."""
    peaks = load(Gpu, o.gpu).peak_flops_per_s
    linear = peaks.get("fp8", peaks["bf16"]) if o.fp8 else peaks["bf16"]
    least_s = o.linear_flops / linear + (o.attention_flops + o.vae_flops) / peaks["bf16"]
    used = least_s / o.seconds
    if used > MOST_UTILISATION:
        raise Unusable(
            f"needs {used:.2f} of {o.gpu}'s datasheet: fewer bits, skipped steps or another size"
            " than it says"
        )


def sources(observations: Sequence[Observation]) -> list[str]:
    """Who they come from, most rows first."""
    names = [o.source for o in observations]
    return sorted(dict.fromkeys(names), key=lambda name: (-names.count(name), name))
