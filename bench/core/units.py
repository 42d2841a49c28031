"""SI inside, human units only when printing.  GB is 1e9 bytes, GiB is 2**30; the two are never
mixed."""

import re

from bench.core.errors import UserError, brief

SECONDS_PER_HOUR = 3600.0
SECONDS_PER_MINUTE = 60.0

MAX_DURATION_S = 365 * 86_400.0
_DURATION = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration(text: str) -> float:
    """'90', '90s', '8m', '1.5h' -> seconds.  Raises UserError for anything else, for nothing or
    less, for over a year."""
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([smh]?)\s*", text)
    seconds = float(match[1]) * _DURATION[match[2]] if match else 0.0
    if not 0 < seconds <= MAX_DURATION_S:
        raise UserError(
            f"duration {brief(text)} is not understood; write for example 90s, 8m or 1.5h"
        )
    return seconds


def si(value: float, unit: str, digits: int = 3) -> str:
    """5.245e11, 'FLOP' -> '525 GFLOP'."""
    if value == 0:
        return f"0 {unit}"
    for power, prefix in (
        (18, "E"),
        (15, "P"),
        (12, "T"),
        (9, "G"),
        (6, "M"),
        (3, "k"),
        (0, ""),
        (-3, "m"),
        (-6, "µ"),
    ):
        if abs(value) >= 10.0**power:
            return (
                f"{value / 10.0**power:.{digits}g} {prefix}{unit}"
                if abs(value) < 10.0 ** (power + 3)
                else f"{value:.{digits}g} {unit}"
            )
    return f"{value:.{digits}g} {unit}"


def seconds(value: float, digits: int = 3) -> str:
    """0.0123 -> '12.3 ms'; 5000 -> '1.39 h'."""
    if value >= 2 * SECONDS_PER_HOUR:
        return f"{value / SECONDS_PER_HOUR:.{digits}g} h"
    if value >= 3 * SECONDS_PER_MINUTE:
        return f"{value / SECONDS_PER_MINUTE:.{digits}g} min"
    return f"{value:.{digits}g} s" if value >= 1 else si(value, "s", digits)
