"""Published rows on several cards, each beside the same video on one."""

from collections.abc import Sequence
from importlib import resources

import numpy as np

from bench.calibrate.evidence.effects import TERMS
from bench.calibrate.evidence.gather import TABLES, observations_of
from bench.calibrate.evidence.observation import Observation, columns
from bench.calibrate.evidence.posterior import Posterior
from bench.calibrate.published.names import Unusable
from bench.calibrate.published.table import Skipped, read_table
from bench.calibrate.scaling.meshes import read_mesh
from bench.calibrate.scaling.model import Observed
from bench.calibrate.scaling.one import one_card
from bench.core.load import load
from bench.core.specs.gpu import Gpu
from bench.core.specs.model import Model
from bench.count.cache import CountCache
from models.parallel.spec import Parallel

NOISE = 0.04  # of log seconds, of a row of grade A beside its source's own row on one card


def rows_on_several(
    singles: Sequence[Observation], posterior: Posterior, cache: CountCache
) -> tuple[list[Observed], list[Skipped]]:
    """Every usable row, and the reasons of the others.  singles: the rows on one card."""
    found, skipped = [], []
    for name in TABLES:
        path = resources.files("configs") / "reference" / name
        table = read_table(path, several_gpus=True)
        skipped += [s for s in table.skipped if not s.reason.endswith("one is fitted")]
        written = {row.id: row for row in table.rows}
        # Several cards at once: what one card could reach at most says nothing of them.
        observations, impossible = observations_of(table, cache, lambda _: None, cards=True)
        skipped += impossible
        for o in observations:
            row = written[o.id]
            try:
                mesh = read_mesh(row.parallelism, row.gpus)
                found.append(_observed(o, mesh, row.prompts == 2, singles, posterior, cache))
            except Unusable as reason:
                skipped.append(Skipped(row.id, row.named, row.gpu, str(reason)))
    return found, skipped


def _observed(
    o: Observation,
    mesh: Parallel,
    guided: bool,
    singles: Sequence[Observation],
    posterior: Posterior,
    cache: CountCache,
) -> Observed:
    link = load(Gpu, o.gpu).link
    if link is None:
        raise Unusable(f"no link of {o.gpu} is known")
    if mesh.cfg > 1 and not guided:
        raise Unusable(f"mesh {mesh.words()}: the row runs one forward a step")
    base = next((s for s in singles if _same(s, o)), None)
    asked = base or o.model_copy(update={"offloaded": False})
    forecast = posterior.forecast(columns([asked]))
    known = base is not None
    seconds = base.seconds if base is not None else float(forecast.seconds[0])
    by_term = dict(zip(TERMS, forecast.shares[0] * seconds, strict=True))
    spread = 0.0 if known else float(forecast.spread[0])
    return Observed(
        id=o.id,
        gpu=o.gpu,
        model=o.model,
        source=o.source,
        size=o.size,
        parallel=mesh,
        link=link,
        one=one_card(o, load(Model, o.model), by_term, guided, cache),
        own_base=known,
        seconds=o.seconds,
        noise=float(np.hypot(NOISE * o.noise, spread)),
    )


def _same(single: Observation, o: Observation) -> bool:
    """The same video by the same source on one card of the same kind."""
    return (single.source, single.gpu, single.named, single.size, single.forwards) == (
        o.source,
        o.gpu,
        o.named,
        o.size,
        o.forwards,
    )
