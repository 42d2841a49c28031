"""Numbers and answers as people write them in tables."""

import math
import re

from bench.calibrate.published.names import Unusable

NUMBER = re.compile(
    r"^\s*[~≈]?\s*(-?(?:\d[\d_]*)?\.?\d+(?:e[+-]?\d+)?\.?|nan|-?inf)\s*"
    r"(s|sec|secs|seconds|ms|min|minutes|px|p|frames|steps|forwards)?\s*$",
    re.IGNORECASE,
)
LONGEST = 100
"""Characters of a number in a cell."""
TIMES = {"ms": 1e-3, "min": 60.0, "minutes": 60.0}
THOUSANDS = re.compile(r"(?<![\d.])(\d{1,3})((?:[,' \u00a0\u202f]\d{3})+)(?![\d,])")
DECIMAL_COMMA = re.compile(r"^(\D*\d+),(\d+\D*)$")


def says_yes(text: str) -> bool:
    return bool(text) and not re.match(
        r"\W*(no|none|false|0|off|n/?a|unstated|unknown)\b", text, re.IGNORECASE
    )


def number_in(name: str, text: str, whole: bool = False) -> float:
    """Raises Unusable for what is empty, no number, not finite or not positive."""
    if not text.strip():
        raise Unusable(f"{name} is empty")
    if len(text) > LONGEST:
        raise Unusable(f"{name} has {len(text):,} characters; a number has at most {LONGEST}")
    plain = THOUSANDS.sub(lambda m: re.sub(r"\D", "", m.group()), text)  # 1,234.5
    match = NUMBER.match(DECIMAL_COMMA.sub(r"\1.\2", plain))  # 12,5
    if match is None:
        raise Unusable(f"{name} {text!r} is not a number")
    try:
        value = float(match.group(1)) * TIMES.get((match.group(2) or "").lower(), 1.0)
    except ValueError:  # 1__2
        raise Unusable(f"{name} {text!r} is not a number") from None
    if not math.isfinite(value):
        raise Unusable(f"{name} is {text.strip()}")
    if value <= 0:
        raise Unusable(f"{name} {text}: it must be positive")
    if value > 1e9 or (whole and value != int(value)):
        raise Unusable(
            f"{name} {text}: {'too large' if value > 1e9 else 'expected a whole number'}"
        )
    return value
