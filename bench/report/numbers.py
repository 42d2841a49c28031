"""Numbers as people read them.  Each function takes a number and returns its text."""

from collections.abc import Callable
from functools import partial
from math import floor, log10

from bench.core.units import seconds, si

Show = Callable[[float], str]


def digits(n: int) -> Show:
    """Significant digits: 3 -> '0.418'."""
    return lambda value: f"{value:.{n}g}"


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
    return f"${value:.2f}" if value >= 1 else f"${value:.3g}"


def plain(value: float, n: int = 3) -> str:
    """n digits without an exponent, from a millionth to a billion: 0.0000392, 79.5, 128,000."""
    if not 1e-6 <= abs(value) < 1e9:  # and zero
        return f"{value:.{n}g}"
    decimals = max(0, n - 1 - floor(log10(abs(value))))
    rounded = float(f"{value:.{n}g}")
    text = f"{rounded:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


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
