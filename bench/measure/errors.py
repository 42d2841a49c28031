"""Why a point gives no times: it does not fit, or it cannot run here.  No torch."""

from bench.core.errors import UserError


class OutOfMemory(Exception):
    """The point does not fit; the text says how much was wanted where that is known."""


class UserCodeFails(UserError):
    """A class of the user's raised; the text says where in its file."""


class Unsupported(Exception):
    """The point cannot run on this device; the text says why."""
