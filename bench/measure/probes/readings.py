"""Readings of a node, each by itself: one that fails costs no other."""

from collections.abc import Callable
from typing import Any

HZ_PER_MHZ, W_PER_MW = 1e6, 1e-3  # NVML's units


class Readings:
    """Values by name, and why the others are missing."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.missing: dict[str, str] = {}

    def take(self, name: str, call: Callable[[], Any]) -> Any:
        """Keep what the call gives; whatever goes wrong in it is why this reading is missing."""
        try:
            value = call()
        except (
            Exception
        ) as error:  # a driver refuses in many ways, and each costs its own reading alone
            self.missing[name] = (str(error).strip().splitlines() or [""])[0] or type(
                error
            ).__name__
            return None
        self.values[name] = value
        return value

    def as_dict(self) -> dict[str, Any]:
        return {"values": self.values, "missing": self.missing}


def there(value: Any, why: str) -> Any:
    """The value.  Raises ValueError with the reason where there is none."""
    if value is None:
        raise ValueError(why)
    return value
