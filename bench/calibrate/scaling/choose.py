"""Which mesh?  Every legal one, the best first, and why."""

from collections.abc import Sequence
from typing import Literal, get_args

from bench.calibrate.scaling.evidence import ScalingRow, scaling_evidence
from bench.calibrate.scaling.forecast import Base, MeshForecast, forecast_on
from bench.core.errors import UserError
from bench.core.units import seconds
from models.parallel.spec import Parallel, every_mesh, refusal

Objective = Literal["latency", "cost", "energy"]
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)
ALIKE = 0.01  # of seconds: meshes that differ by less are said to be as good


def check_cards(base: Base, cards: int) -> None:
    """Raises UserError for so many cards of this kind."""
    if base.own is not None:
        known = [1, *base.own.links]
        if cards not in known:
            measured = ", ".join(map(str, known))
            raise UserError(
                f"--gpus {cards}: expected one of {measured}, which the result measured"
            )
        return
    if not 1 <= cards <= base.link.cards:
        raise UserError(
            f"--gpus {cards}: up to {base.link.cards} cards of {base.gpu.name} share a"
            f" {base.link.kind} domain, and nothing is published across several"
        )


def all_meshes(base: Base, cards: int) -> list[MeshForecast]:
    """Every mesh on so many cards that the model can run on, by data and single cards too.
    Weights are sharded where they do not fit one card.  The decode stays on one card, as in most
    published rows."""
    too_large = forecast_on(base, Parallel()).fits_memory is False
    meshes = [
        mesh.model_copy(update={"shard_weights": too_large and _may_shard(mesh)})
        for mesh in every_mesh(cards)
    ]
    return [forecast_on(base, mesh) for mesh in meshes if refusal(mesh, base.shape) is None]


def ranked(found: Sequence[MeshForecast], objective: Objective) -> list[MeshForecast]:
    """The best first; meshes whose weights do not fit come last.  cost and energy are the same
    order: dollars and kWh (at the power limit) are card-seconds."""

    def order(mesh: MeshForecast) -> tuple[bool, float]:
        cards = 1 if objective == "latency" else mesh.parallel.of_one_sample
        return mesh.fits_memory is False, mesh.video_s.value * cards

    return sorted(found, key=order)


def single_cards(base: Base, cards: int) -> MeshForecast:
    """As many videos at once, one a card."""
    return forecast_on(base, Parallel(data=cards))


def rows_of_point(base: Base, cards: int) -> list[ScalingRow]:
    """Published rows of this very point on as many of these cards, on any mesh."""
    asked = (base.gpu.name, base.point.model.name, base.size, base.one.forwards, cards)
    return [
        row
        for row in scaling_evidence().rows
        if (row.gpu, row.model, row.size, row.forwards, row.cards) == asked
    ]


def with_spread_decode(base: Base, best: MeshForecast) -> MeshForecast:
    """The same mesh, with the VAE on all cards of a sample."""
    shared = best.parallel.model_copy(update={"vae": best.parallel.of_one_sample})
    return forecast_on(base, shared)


def why_first(found: Sequence[MeshForecast], objective: Objective) -> str:
    """One sentence.  found: ranked."""
    best, *others = found
    if not others:
        return f"{best.parallel.words()} is the only choice for this model"
    second = others[0]
    first = f"{best.parallel.words()} is first of {len(found)} meshes by {objective}"
    if second.fits_memory is False and best.fits_memory is not False:
        return f"{first}: no other has room for the weights"
    if objective != "latency" and best.parallel.of_one_sample == 1:
        return f"{first}: single cards send nothing and wait for nobody"
    if best.parallel.of_one_sample == second.parallel.of_one_sample:
        return f"{first}: {_seconds_more(best, second)}"
    return (
        f"{first}: {second.parallel.words()} works with {second.parallel.of_one_sample} cards on a"
        f" video, it with {best.parallel.of_one_sample}"
    )


def _seconds_more(best: MeshForecast, second: MeshForecast) -> str:
    """What the next one loses, by part."""
    more = {
        "in sending": second.parts.communication_s - best.parts.communication_s,
        "in computing": second.parts.denoise_s - best.parts.denoise_s,
        "in what stays on one card": second.parts.serial_s - best.parts.serial_s,
    }
    total = sum(more.values())
    name = second.parallel.words()
    if total <= ALIKE * best.parts.seconds:
        return f"{name} is as good (within {ALIKE:.0%})"
    most = max(more, key=lambda part: more[part])
    return f"{name} takes {seconds(total)} more a video, {seconds(more[most])} of it {most}"


def _may_shard(mesh: Parallel) -> bool:
    return mesh.tensor == 1 and mesh.ranks > 1
