"""Ablations: the gain of a recipe, the distance of its output from the baseline's, and the panel's
claims."""

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from bench.core.units import seconds
from bench.report.numbers import energy, three
from bench.report.tables.table import DASH, Cell, Column, Table, measured, number, quantity, table
from bench.results.records import BaselineNoise, Divergence
from bench.studies.ablations.gains import QUALITY, Ablation, claims

COLUMNS = [
    "recipe",
    measured("speed-up (interval)"),
    measured("relative L2 of latents"),
    measured("of the baseline: rerun, other seed"),
    measured("cosine", detail=True),
    measured("PSNR of video"),
    measured("step", detail=True),
    measured("video"),
    measured("minutes/h", detail=True),
    measured("USD/minute", detail=True),
    measured("peak memory", detail=True),
    measured("energy", detail=True),
    measured("first calls", detail=True),
]


def ablations_table(rows: Sequence[Ablation]) -> Table:
    """Each recipe beside its baseline; a counted speed-up says so itself.

    A dash stands for a reading that was not taken; a recipe that did not run has its reason."""
    several = len({row.model for row in rows}) > 1
    names = [f"{row.model}: {row.recipe}" if several else row.recipe for row in rows]
    return table(
        f"Recipes against {rows[0].baseline}",
        COLUMNS,
        [_cells(row, name) for row, name in zip(rows, names, strict=True)],
        note="* on the Pareto front of speed and divergence; weights random: quality cannot tell",
    )


def _cells(row: Ablation, name: str) -> list[Cell | str]:
    name += " *" if row.on_front else ""
    if row.video_s is None and row.speed_up is None:
        return [name, f"{row.outcome}: {row.reason}", *[""] * (len(COLUMNS) - 2)]
    minutes, usd = row.minutes_per_gpu_hour, row.usd_per_minute
    return [
        name,
        speed_up(row),
        *_divergence_cells(row),
        number(row.step_s.value if row.step_s else None, seconds),
        number(row.video_s.value if row.video_s else None, seconds),
        number(minutes.value if minutes else None),
        number(usd.value if usd else None),
        number(row.peak_bytes or None, lambda size: f"{size / 1e9:.3g} GB"),
        number(row.energy_j or None, energy),
        number(row.compile_s or None, seconds),
    ]


def _divergence_cells(row: Ablation) -> list[Cell]:
    """Relative L2, the baseline's own, cosine, PSNR."""
    d = row.divergence
    if d is None:
        return [number(None)] * 4
    return [
        Cell(_l2(d), d.relative_l2),
        _noise_cell(row.noise),
        number(d.cosine, lambda x: f"{x:.4f}"),
        number(d.psnr_db, lambda x: f"{x:.0f} dB"),
    ]


def _l2(divergence: Divergence) -> str:
    return "exact" if divergence.identical else f"{divergence.relative_l2:.2g}"


def _noise_cell(noise: BaselineNoise | None) -> Cell:
    """'exact, 1.4': of the same call once more, and the median of three pairs of seeds."""
    if noise is None:
        return number(None)
    seeds = median(d.relative_l2 for d in noise.seeds)
    return Cell(f"{_l2(noise.rerun)}, {seeds:.2g}", seeds)


def speed_up(row: Ablation) -> Cell:
    """'1.43 (1.41 to 1.45)'; a counted, an unsteady one and one not taken in turns say so."""
    if row.speed_up is None:
        return Cell(DASH)
    if row.speed_up_provenance == "counted":
        text = f"at most {three(row.speed_up.value)} (counted)"
        return Cell(text, row.speed_up.value, provenance="counted")
    notes = ("" if row.in_turns else ", not in turns") + (", unsteady" if row.unsteady else "")
    return Cell(quantity(row.speed_up).text + notes, row.speed_up.value)


def combinations_table(rows: Iterable[Ablation]) -> Table:
    """Recipes that combine others beside the product of their parts; it may be empty."""
    return table(
        "Combined, beside the product of the parts",
        [
            "recipe",
            "parts",
            measured("product of their speed-ups (derived)"),
            measured("together"),
            measured("together / product"),
        ],
        [
            [
                row.recipe,
                " x ".join(row.parts),
                quantity(row.product)
                if row.product
                else f"{DASH} (a part was not measured, or is unsteady)",
                quantity(row.speed_up) if row.speed_up else f"{row.outcome}: {row.reason}",
                number(
                    row.speed_up.value / row.product.value
                    if row.speed_up and row.product
                    else None,
                    lambda ratio: f"{ratio:.2f}",
                ),
            ]
            for row in rows
            if row.parts
        ],
    )


def panel_table(rows: list[Ablation], device: str) -> Table:
    """The panel's claims: the fastest recipe here, the fastest with as many steps, the verdict."""
    return table(
        "The panel's speed-ups",
        [
            Column("claimed", provenance="claimed"),
            measured("fastest here"),
            measured("fastest with as many steps"),
            "verdict on speed",
            "on quality",
        ],
        [
            [
                claim["claim"],
                _fastest(claim["fastest"]),
                _fastest(claim["fastest_without_fewer_steps"]),
                claim["verdict"],
                QUALITY,
            ]
            for claim in claims(rows, device)
        ],
    )


def _fastest(entry: dict[str, Any] | None) -> Cell:
    if entry is None:
        return Cell(DASH)
    fewer = entry["fewer_steps"]
    steps = f"; {three(fewer)} times fewer steps" if fewer > 1 else ""
    value = entry["speed_up"]["value"]
    return Cell(f"{three(value)} ({entry['recipe']}{steps})", value)
