"""One thing looked at, and the readings that checks are made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Verdict = Literal["ok", "warn", "fail", "unknown"]


@dataclass(frozen=True)
class Check:
    """One thing looked at."""

    name: str
    measured: str | None
    expected: str | None
    verdict: Verdict
    why: str | None
    """Said wherever the verdict is not ok."""


class Look:
    """Readings, and checks of them."""

    def __init__(self, readings: Mapping[str, Any]):
        self.values, self.missing = readings["values"], readings["missing"]

    def get(self, name: str) -> Any:
        return self.values.get(name)

    def unknown(
        self, check: str, reading: str, expected: str | None = None, verdict: Verdict = "unknown"
    ) -> Check:
        return Check(
            check, None, expected, verdict, self.missing.get(reading, "not read on this device")
        )

    def flag(
        self,
        check: str,
        reading: str,
        bad: Any,
        verdict: Verdict,
        why: str,
        words: Mapping[Any, str],
    ) -> Check:
        """A reading that must not be `bad`."""
        value = self.get(reading)
        if value is None:
            return self.unknown(check, reading)
        good = " or ".join(word for key, word in words.items() if key != bad)
        return Check(
            check,
            words[value],
            good,
            verdict if value == bad else "ok",
            why if value == bad else None,
        )

    def judge(
        self, check: str, measured: str, expected: str | None, verdict: Verdict, why: str
    ) -> Check:
        """A check that says why wherever it is not ok."""
        return Check(check, measured, expected, verdict, None if verdict == "ok" else why)


def least(share: float, warn: float, fail: float) -> Verdict:
    return "ok" if share >= warn else "warn" if share >= fail else "fail"
