"""The failures a user sees as one line.  Exit codes: 0 ok, 1 a verdict failed, 2 the user's mistake, 3 the environment."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """The user's mistake: names the value, what is accepted, and the nearest match.  Exit code 2."""

    exit_code = 2


class EnvironmentFault(Exception):
    """What the machine lacks: no such device, a missing package, a full disk.  Exit code 3."""

    exit_code = 3


def nearest(word: str, accepted: Iterable[str]) -> str:
    """'; did you mean X?' for the closest accepted word, or nothing."""
    close = difflib.get_close_matches(word, list(accepted), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""
