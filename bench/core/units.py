"""SI inside, human units only when printing.  GB is 1e9 bytes, GiB is 2**30; the two are never
mixed."""

import re
from math import floor, log10

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


def plain(value: float, n: int = 3) -> str:
    """n digits without an exponent, from a billionth to a billion: 0.0000392, 79.5, 128,000."""
    if not 1e-9 <= abs(value) < 1e9:  # and zero
        return f"{value:.{n}g}"
    decimals = max(0, n - 1 - floor(log10(abs(value))))
    rounded = float(f"{value:.{n}g}")
    text = f"{rounded:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


_PREFIXES = {18: "E", 15: "P", 12: "T", 9: "G", 6: "M", 3: "k", 0: "", -3: "m", -6: "µ", -9: "n"}


def si(value: float, unit: str, digits: int = 3) -> str:
    """5.245e11, 'FLOP' -> '525 GFLOP'."""
    value = float(f"{value:.{digits}g}")  # 999.9 G is 1 T
    power = next((p for p in _PREFIXES if abs(value) >= 10.0**p), None)
    if power is None or abs(value) >= 1e21:
        return f"{value:.{digits}g} {unit}"
    return f"{plain(value / 10.0**power, digits)} {_PREFIXES[power]}{unit}"


def seconds(value: float, digits: int = 3) -> str:
    """0.0123 -> '12.3 ms'; 5000 -> '1.39 h'."""
    if value >= 2 * SECONDS_PER_HOUR:
        return f"{plain(value / SECONDS_PER_HOUR, digits)} h"
    if value >= 3 * SECONDS_PER_MINUTE:
        return f"{value / SECONDS_PER_MINUTE:.{digits}g} min"
    return f"{value:.{digits}g} s" if value >= 1 else si(value, "s", digits)


def an_hour_of(gpu: str) -> str:
    """What the hour of a headline is of, by the device's name in a record: 'GPU-hour' or
    'CPU-hour'."""
    return "CPU-hour" if gpu == "cpu" else "GPU-hour"


def minutes_an_hour(gpu: str) -> str:
    """The headline's unit in full."""
    hour = "hour of this CPU" if gpu == "cpu" else an_hour_of(gpu)
    return f"minutes of video per {hour}"


MINUTES_AN_HOUR = "minutes of video per hour of the device"
"""The unit where several devices stand side by side, as from an H100 down to a CPU."""
