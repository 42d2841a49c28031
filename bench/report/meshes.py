"""A forecast on several cards, in words and as a document of --json."""

from collections.abc import Sequence
from typing import Any

from bench.calibrate.scaling.choose import rows_of_point
from bench.calibrate.scaling.evidence import ScalingEvidence, ScalingRow
from bench.calibrate.scaling.forecast import Base, MeshForecast
from bench.calibrate.scaling.own import OwnRanks
from bench.report.forecasts import dollars
from bench.report.numbers import three


def mesh_headline(m: MeshForecast) -> str:
    """Seconds, minutes an hour, dollars and efficiency in one line."""
    s = m.video_s
    parts = [
        f"{m.parallel.words()}: {three(s.value)} s a video ({three(s.low)} to {three(s.high)};"
        f" 90 %, {m.provenance})",
        f"{three(m.minutes_per_gpu_hour.value)} minutes of video per GPU-hour",
        dollars(m.usd_per_minute),
        f"{m.efficiency:.0%} of one card's efficiency",
    ]
    return ", ".join(part for part in parts if part)


def beside_single(best: MeshForecast, single: MeshForecast) -> str:
    """What the same cards give, one video each.  single: on one card each."""
    cards = best.parallel.ranks
    text = (
        f"beside it, {cards} single cards: {cards} videos in {three(single.video_s.value)} s,"
        f" {three(single.minutes_per_gpu_hour.value)} minutes per GPU-hour"
    )
    if single.usd_per_minute is not None:
        text += f", {dollars(single.usd_per_minute)}"
    return f"{text}; they do not fit its weights" if single.fits_memory is False else text


def resting_on_rows(fitted: ScalingEvidence, cards: int) -> str:
    """What a mesh's seconds rest on, and how wrong such predictions were."""
    found = fitted.error_on(cards)
    text = f"fitted to {fitted.n} published rows on several cards, of {len(fitted.sources)} sources"
    if found is None:
        return text
    simple = "" if found.constant is None else f", constant efficiency {found.constant:.1%}"
    return (
        f"{text} (held-out error on {found.cards} cards: {found.error:.1%} for a new source beside"
        f" its own row on one card{simple})"
    )


def resting_on_ranks(own: OwnRanks) -> str:
    """The same, by a result's own ranks."""
    text = (
        f"fitted to {own.fitted.stages} stages of one rank and to what these ranks reach together"
    )
    if own.held_out is None:
        return f"{text}; no step on several ranks was measured beside it"
    return (
        f"{text}, times {own.factor:.2f}, the mean miss of {own.steps} steps on several ranks"
        f" (held-out error {own.held_out.mean:.1%})"
    )


def published_mesh(row: ScalingRow) -> str:
    """A row of this very point."""
    return (
        f"published of this very point: {three(row.seconds)} s ({row.id}, {row.mesh}; {row.source})"
    )


def mesh_document(m: MeshForecast) -> dict[str, Any]:
    """One mesh of `predict --gpus --json`."""
    usd, kwh = m.usd_per_minute, m.kwh_per_minute
    return {
        "parallel": m.parallel.model_dump(),
        "gpus": m.parallel.ranks,
        "video_s": m.video_s.as_dict(),
        "video_s_by_part": {
            "denoise": m.parts.denoise_s,
            "communication": m.parts.communication_s,
            "on_one_card": m.parts.serial_s,
        },
        "minutes_per_gpu_hour": m.minutes_per_gpu_hour.as_dict(),
        "usd_per_minute": usd.as_dict() if usd else None,
        "kwh_per_minute": kwh.as_dict() if kwh else None,
        "efficiency": m.efficiency,
        "fits_memory": m.fits_memory,
        "provenance": m.provenance,
    }


def base_document(base: Base) -> dict[str, Any]:
    """The point, and its card alone."""
    return {
        "model": base.point.model.name,
        "workload": base.point.workload.name,
        "recipe": base.point.recipe.name,
        "gpu": base.gpu.name,
        "link": base.gpu.link and base.gpu.link.model_dump(),
        "one_gpu_video_s": base.video_s.as_dict(),
        "warnings": list(base.warnings),
    }


def evidence_document(fitted: ScalingEvidence) -> dict[str, Any]:
    """What all of it rests on."""
    return fitted.model_dump(exclude={"rows", "left_out"})


def ranking_document(
    base: Base, found: Sequence[MeshForecast], why: str, fitted: ScalingEvidence
) -> dict[str, Any]:
    """`predict --gpus N --json` on one kind of card."""
    return base_document(base) | {
        "best": mesh_document(found[0]),
        "why": why,
        "meshes": [mesh_document(m) for m in found],
        "published": [row.model_dump() for row in rows_of_point(base, found[0].parallel.ranks)],
        "evidence": evidence_document(fitted),
    }
