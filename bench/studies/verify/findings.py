"""What a check found."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["agrees", "differs", "not checked"]


@dataclass(frozen=True)
class Finding:
    """Of one check."""

    check: str
    verdict: Verdict
    where: str = ""
    """The record, stage or file; "" of a check that agrees everywhere."""
    said: str = ""
    """What differs, or why it was not checked."""
    n: int = 1
    """Things that were held against one another."""


def differs(check: str, where: str, said: str) -> Finding:
    return Finding(check, "differs", where, said)


def summed(check: str, n: int, found: Iterable[Finding]) -> Iterator[Finding]:
    """What differs; where nothing does, one finding that all n agree."""
    wrong = list(found)
    yield from wrong or [Finding(check, "agrees", n=n)]
