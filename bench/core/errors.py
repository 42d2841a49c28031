"""The failures a user sees as one line.  Exit codes: 0 ok, 1 a verdict failed, 2 the user's
mistake, 3 the environment."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """The user's mistake: names the value, what is accepted, and the nearest match.  Exit code
    2."""

    exit_code = 2


class EnvironmentFault(Exception):
    """What the machine lacks: no such device, a missing package, a full disk.  Exit code 3."""

    exit_code = 3


class Terminated(BaseException):
    """SIGTERM or a lost terminal: handled as Ctrl-C is, with the exit code of the signal (typer
    makes any KeyboardInterrupt a 130)."""

    def __init__(self, number: int):
        super().__init__(number)
        self.exit_code = 128 + number


class Renamed(UserWarning):
    """A note that an old name still answers, and what the new one is."""


def closest(word: str, accepted: Iterable[str]) -> list[str]:
    """The accepted words that a mistyped one may mean, whatever its case: none, one, or up to
    three that begin with it."""
    by_lower = {a.lower(): a for a in accepted}
    begun = [a for low, a in by_lower.items() if word and low.startswith(word.lower())]
    # h100 is nearer to h100-sxm than to h200.  Of names that continue one another the shortest is
    # meant.
    if begun:
        shortest = min(map(len, begun))
        return [a for a in begun if len(a) <= shortest + 1][:3]
    close = difflib.get_close_matches(word[:100].lower(), by_lower, n=1, cutoff=0.5)
    return [by_lower[match] for match in close]


def did_you_mean(words: Iterable[str]) -> str:
    """'; did you mean X or Y?', or nothing."""
    meant = " or ".join(words)
    return f"; did you mean {meant}?" if meant else ""


def nearest(word: str, accepted: Iterable[str]) -> str:
    """'; did you mean X?' for the closest accepted word, or nothing."""
    return did_you_mean(closest(word, accepted))


def brief(value: object, length: int = 60) -> str:
    """A value as one line of a message."""
    text = repr(value)
    return text if len(text) <= length else text[: length - 3] + "..."


MAX_MESSAGE = 4000
"""Characters of a message: a cell of a table, or a name, can have any number."""


def one_line(text: str) -> str:
    """A message with its control characters shown: a name can hold any, and a message is one line
    of at most MAX_MESSAGE characters."""
    if len(text) > MAX_MESSAGE:
        text = f"{text[:MAX_MESSAGE]}... ({len(text):,} characters)"
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )
