"""What makes a clip: a card or a mesh, with the seconds that `predict` says."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench.calibrate.evidence.forecast import forecast, usual_conditions
from bench.calibrate.scaling.choose import all_meshes, check_cards, ranked
from bench.calibrate.scaling.forecast import Base, base_of_forecast, forecast_on
from bench.core.errors import UserError
from bench.core.load import load_point
from bench.core.quantity import Quantity
from bench.core.specs.demand import Demand
from bench.count.cache import CountCache
from bench.studies.fleet.plan import ClipCost, Server
from models.parallel.spec import Parallel

MESHES = (1, 2, 4, 8)


def single_cards(demand: Demand, model: str, recipe: str | None, gpu: str) -> Server:
    """A clip on each card.  recipe: None for how published rows of the model were run.  Raises
    UserError for a card without evidence."""
    return _server(_bases(demand, model, recipe, gpu), demand, None, 1)


def on_meshes(
    demand: Demand, model: str, recipe: str | None, gpu: str, counts: Sequence[int] = MESHES
) -> list[Server]:
    """A clip on 1, 2, 4 or 8 cards, each number by its mesh of the least card-seconds; those that
    the card or the model does not allow are left out."""
    bases = _bases(demand, model, recipe, gpu)
    found = []
    for cards in counts:
        try:
            found.append(_server(bases, demand, None, cards))
        except UserError:
            if cards == 1:
                raise
    return found


def on_mesh(demand: Demand, model: str, recipe: str | None, gpu: str, mesh: Parallel) -> Server:
    """A clip on a mesh that was named.  Raises UserError where it cannot run."""
    return _server(_bases(demand, model, recipe, gpu), demand, mesh, mesh.of_one_sample)


def of_calibration(
    demand: Demand, model: str, recipe: str | None, calibration: Path, gpu: str | None
) -> Server:
    """A clip on one card, by a result's own records.  Raises UserError."""
    from bench.calibrate.estimate import estimate
    from bench.calibrate.make import load_or_calibrate
    from bench.core.load import load, names
    from bench.core.specs.gpu import Gpu

    calibrated = load_or_calibrate(calibration)
    clips, kwh, card, provenance = [], [], calibrated.gpu, "fitted"
    how = recipe or calibrated.default_recipe
    for clip in demand.clips:
        point = load_point(model, clip.workload, how)
        predicted = estimate(point, calibrated, gpu=gpu)
        card, provenance = predicted.gpu, predicted.provenance
        clips.append(ClipCost(clip.workload, clip.share, point.workload.video_s, predicted.video_s))
        kwh.append((clip.share, predicted.kwh_per_minute))
    if card not in names("gpus"):
        raise UserError(f"{calibration} was measured on {card}, which no file of configs/gpus has")
    return Server(load(Gpu, card), 1, f"one card, {how}", tuple(clips), _kwh(kwh), provenance)


def in_batches(demand: Demand, model: str, recipe: str | None, gpu: str, batch: int) -> Server:
    """So many clips of one kind at once on a card: a server makes them all in one time."""
    bases = _bases(demand, model, recipe, gpu, batch)
    server = _server(bases, demand, None, 1)
    clips = tuple(replace(c, service_s=c.service_s.scaled(batch)) for c in server.clips)
    return replace(server, how=f"one card, batches of {batch}", clips=clips)


def _bases(demand: Demand, model: str, recipe: str | None, gpu: str, batch: int = 1) -> list[Base]:
    """Each kind of clip on one card."""
    counts, run = CountCache(), None if recipe else usual_conditions(model)
    changes = {} if batch == 1 else {"workload.batch": batch}
    bases = []
    for clip in demand.clips:
        point = load_point(model, clip.workload, recipe or "eager-bf16", changes)
        if point.model.autoregressive:
            raise UserError(f"model {model} is auto-regressive: no published row is like it")
        bases.append(base_of_forecast(forecast(point, gpu, run, counts), counts))
    return bases


def _server(bases: Sequence[Base], demand: Demand, mesh: Parallel | None, cards: int) -> Server:
    found = []
    for base in bases:
        check_cards(base, cards)
        if mesh is not None or cards == 1:
            found.append(forecast_on(base, mesh or Parallel()))
            continue
        whole = [f for f in all_meshes(base, cards) if f.parallel.of_one_sample == cards]
        if not whole:
            raise UserError(f"no mesh of {cards} cards makes one clip of {base.point.model.name}")
        found.append(ranked(whole, "latency")[0])
    words = dict.fromkeys("one card" if cards == 1 else f.parallel.words() for f in found)
    clips = tuple(
        ClipCost(clip.workload, clip.share, base.point.workload.video_s, f.video_s)
        for clip, base, f in zip(demand.clips, bases, found, strict=True)
    )
    kwh = [(c.share, f.kwh_per_minute) for c, f in zip(demand.clips, found, strict=True)]
    fitted = all(f.provenance == "fitted" for f in found)
    provenance = "fitted" if fitted else "extrapolated"
    return Server(bases[0].gpu, cards, ", ".join(words), clips, _kwh(kwh), provenance)


def _kwh(shares: Sequence[tuple[float, Quantity | None]]) -> Quantity | None:
    """Of a minute of the mix."""
    if any(kwh is None for _, kwh in shares):
        return None
    return Quantity.sum(kwh.scaled(share) for share, kwh in shares if kwh is not None)
