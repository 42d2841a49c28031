"""Numbers as people read them.  Each function takes a number and returns its text."""

import re
from collections.abc import Callable
from functools import partial

from bench.core.units import plain, seconds, si

Show = Callable[[float], str]


def digits(n: int) -> Show:
    """Significant digits: 3 -> '0.418', '1,750,000'."""
    return lambda value: plain(value, n)


def percent(decimals: int = 1) -> Show:
    """A share as per cent: 0.123 -> '12.3%'."""
    return lambda value: f"{value:.{decimals}%}"


def in_units(unit: str, n: int = 3) -> Show:
    """With an SI prefix: 5.245e11 in 'FLOP' -> '525 GFLOP'."""
    return lambda value: si(value, unit, n)


three = digits(3)
precise_seconds = partial(seconds, digits=4)
work = in_units("FLOP")
work_rate = in_units("FLOP/s")
traffic = in_units("B")
traffic_rate = in_units("B/s")
energy = in_units("J")


def change(value: float) -> str:
    """A relative change: 0.012 -> '+1.2%'."""
    return f"{value:+.1%}"


def whole(value: float) -> str:
    """128000 -> '128,000'."""
    return f"{value:,.0f}"


def dollars(value: float) -> str:
    return f"${value:.2f}" if value >= 1 else f"${plain(value)}"


_EXPONENT = r"\d[\d.]*e\+\d+"
OLD_WORK = re.compile(rf"(?:({_EXPONENT}) )?FLOPs of a (step|decode)(?: ({_EXPONENT}))?")
OLD_NUMBER = re.compile(rf"\b{_EXPONENT}\b")


def without_exponents(text: str) -> str:
    """A warning as an older calibration.json holds it: '9.4e+05 times' as '940,000 times'."""

    def work_of(m: re.Match[str]) -> str:
        found = m[1] or m[3]
        return f"{work(float(found))} a {m[2]}" if found else m[0]

    text = OLD_WORK.sub(work_of, text)
    return OLD_NUMBER.sub(lambda m: whole(float(m[0])), text)


def printed(value: float) -> str:
    """Four digits, and every digit before the point up to 1e7: 0.5123, 262,144, 1.53e+07."""
    if abs(value) < 1e4:
        return plain(value, 4)
    return whole(value) if abs(value) < 1e7 else f"{value:.4g}"


def binary(size: int) -> str:
    """2 ** 28 -> '256 MiB'."""
    for power, prefix in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size >= 2**power:
            return f"{size / 2**power:.4g} {prefix}"
    return f"{size} B"
