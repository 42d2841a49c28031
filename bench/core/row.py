"""A published figure in one row: as its source prints it, as its own assumptions give it, with the
arithmetic corrected, and as measured.

The pencil makes such rows; the ledger of claims judges them.
"""

from dataclasses import dataclass
from math import floor, log10
from typing import Any

from bench.core.quantity import Quantity

TOLERANCE = 0.015
"""A computed figure agrees with the printed one when it is at most this share off."""


@dataclass(frozen=True)
class Row:
    """One quantity of the chain."""

    id: str
    quantity: str
    printed: float | None
    """As the source prints it; None for what it does not print."""
    computed: float | None
    """From the chain's own assumptions."""
    unit: str
    note: str = ""
    corrected: float | None = None
    """With the arithmetic put right (2 FLOPs a MAC, real attention, right sums), still at 100 % of
    the datasheet."""
    calibrated: Quantity | None = None
    """From measurement; None without a calibration or where time plays no part."""

    @property
    def agreement(self) -> str | None:
        """How the computed value agrees with the printed one."""
        if self.printed is None or self.computed is None:
            return None
        off = self.computed / self.printed - 1
        if abs(off) <= TOLERANCE:
            return f"{off:+.2%}" if abs(off) >= 5e-5 else "equal"
        if any(abs(_round(self.computed, digits) / self.printed - 1) < 1e-9 for digits in (1, 2)):
            return f"{off:+.1%}: rounds to what is printed"
        return f"{off:+.1%}: differs"

    def as_dict(self) -> dict[str, Any]:
        calibrated = self.calibrated.as_dict() if self.calibrated else None
        return {
            **vars(self),
            "calibrated": calibrated,
            "calibrated_interval": calibrated,
            "agreement": self.agreement,
            "provenance": (
                "extrapolated"
                if self.calibrated
                else "claimed"
                if self.computed is None
                else "counted"
            ),
        }


def _round(value: float, digits: int) -> float:
    """To significant digits, half up as people round."""
    unit = 10.0 ** (floor(log10(abs(value))) - digits + 1)
    return floor(value / unit + 0.5) * unit
