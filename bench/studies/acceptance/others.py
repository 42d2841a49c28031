"""What other cards of the same kind reached, from the results that lie here."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench.core.errors import EnvironmentFault, UserError
from bench.results.records import CeilingsRecord
from bench.results.store import RECORDS, card_ceilings, read_records

OFF = 0.10
"""Below the median of the others: named."""
WORDS = {"gemm_flops_per_s": "GEMM", "copy_bytes_per_s": "copy"}


@dataclass(frozen=True)
class Reached:
    """One card's ceilings.  Provenance: measured."""

    card: str
    gemm_flops_per_s: float | None
    copy_bytes_per_s: float | None
    result: str
    """The directory that they stand in."""


def reached_by_others(root: Path, gpu: str, own: str | None) -> list[Reached]:
    """The newest ceilings of every other card of this kind under ROOT/<gpu>; results that cannot be
    read are passed over, since nobody asked for them."""
    found: dict[str, Reached] = {}
    for directory in sorted(path.parent for path in (root / gpu).glob(f"*/{RECORDS}")):
        for card, ceilings in _ceilings(directory):
            if card not in (None, own):
                rates = ceilings.peak("gemm"), ceilings.peak("copy")
                found[card] = Reached(card, *rates, directory.name)
    return [found[card] for card in sorted(found)]


def _ceilings(directory: Path) -> Iterable[tuple[str | None, CeilingsRecord]]:
    try:
        return card_ceilings(read_records(directory)).items()
    except (UserError, EnvironmentFault):
        return []


def slower_than_others(here: Mapping[str, Any], others: Sequence[Reached]) -> list[str]:
    """In words, where a rate is more than OFF below the others' median.  here: readings of
    doctor."""
    found = []
    for name, rate in rates_of(here).items():
        known = [r for card in others if (r := getattr(card, name)) is not None]
        if rate is None or not known:
            continue
        short = 1 - rate / median(known)
        if short > OFF:
            what = WORDS[name]
            found.append(f"{what} {short:.0%} below the median of {len(known)} other cards here")
    return found


def rates_of(here: Mapping[str, Any]) -> dict[str, float | None]:
    """GEMM and copy of doctor's readings, by the names that Reached has for them."""
    gemm = here.get("gemm") or {}
    return {
        "gemm_flops_per_s": gemm.get("flops_per_s"),
        "copy_bytes_per_s": here.get("copy_bytes_per_s"),
    }
