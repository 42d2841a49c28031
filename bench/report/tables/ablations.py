"""Tables of the ablations: what a recipe gains, how far its output is from the baseline's, and the
panel's claims."""

from typing import Any

from bench.core.quantity import Quantity
from bench.core.units import seconds
from bench.studies.ablations.gains import QUALITY, Ablation, claims

COLUMNS = (
    "recipe",
    "speed-up (interval)",
    "relative L2 of latents",
    "cosine",
    "PSNR of video",
    "step",
    "video",
    "minutes/h",
    "USD/minute",
    "peak memory",
    "energy",
    "first calls",
)


def ablation_rows(rows: list[Ablation]) -> list[tuple[str, ...]]:
    """A line for each recipe, as COLUMNS; what was not measured is a dash, what did not run its
    reason."""
    several = len({row.model for row in rows}) > 1
    return [_cells(row, f"{row.model}: {row.recipe}" if several else row.recipe) for row in rows]


def _cells(row: Ablation, name: str) -> tuple[str, ...]:
    name += " *" if row.on_front else ""
    if row.video_s is None and row.speed_up is None:
        return (name, f"{row.outcome}: {row.reason}", *[""] * (len(COLUMNS) - 2))
    d = row.divergence
    return (
        name,
        speed_up(row),
        "exact" if d and d.identical else f"{d.relative_l2:.2g}" if d else "–",
        f"{d.cosine:.4f}" if d else "–",
        f"{d.psnr_db:.0f} dB" if d and d.psnr_db is not None else "–",
        seconds(row.step_s.value) if row.step_s else "–",
        seconds(row.video_s.value) if row.video_s else "–",
        f"{row.minutes_per_gpu_hour.value:.3g}" if row.minutes_per_gpu_hour else "–",
        f"{row.usd_per_minute.value:.3g}" if row.usd_per_minute else "–",
        f"{row.peak_bytes / 1e9:.3g} GB" if row.peak_bytes else "–",
        f"{row.energy_j:.3g} J" if row.energy_j else "–",
        seconds(row.compile_s) if row.compile_s else "–",
    )


def speed_up(row: Ablation) -> str:
    """'1.43 (1.41 to 1.45)'; a counted, an unsteady one and one not taken in turns say so."""
    if row.speed_up is None:
        return "–"
    if row.speed_up_provenance == "counted":
        return f"at most {row.speed_up.value:.3g} (counted)"
    return (
        _span(row.speed_up)
        + ("" if row.in_turns else ", not in turns")
        + (", unsteady" if row.unsteady else "")
    )


def combination_rows(rows: list[Ablation]) -> list[tuple[str, ...]]:
    """Recipes that combine others: measured beside the product of their parts."""
    return [
        (
            row.recipe,
            " x ".join(row.parts),
            _span(row.product) if row.product else "– (a part was not measured, or is unsteady)",
            _span(row.speed_up) if row.speed_up else f"{row.outcome}: {row.reason}",
            f"{row.speed_up.value / row.product.value:.2f}"
            if row.speed_up and row.product
            else "–",
        )
        for row in rows
        if row.parts
    ]


def claim_rows(rows: list[Ablation], device: str) -> list[tuple[str, ...]]:
    """The panel's claims: the fastest recipe here, the fastest with as many steps, the verdict."""

    def best(entry: dict[str, Any] | None) -> str:
        if entry is None:
            return "–"
        return (
            f"{entry['speed_up']['value']:.3g} ({entry['recipe']}"
            + (
                f"; {entry['fewer_steps']:.3g} times fewer steps"
                if entry["fewer_steps"] > 1
                else ""
            )
            + ")"
        )

    return [
        (
            c["claim"],
            best(c["fastest"]),
            best(c["fastest_without_fewer_steps"]),
            c["verdict"],
            QUALITY,
        )
        for c in claims(rows, device)
    ]


def _span(q: Quantity) -> str:
    return f"{q.value:.3g} ({q.low:.3g} to {q.high:.3g})"
