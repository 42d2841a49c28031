"""A process that runs its parent's code, and goes when its parent goes."""

import ctypes
import os
import signal
import sys
from pathlib import Path

from models.python.imports import handed_on
from models.real_weights import handed_on as of_weights

PR_SET_PDEATHSIG = 1


def child_environment() -> dict[str, str]:
    """With the parent's own code first, whatever lies in the directory it is run from; and with
    the leave to import users' classes that the parent has."""
    own = str(Path(__file__).parents[3])
    path = os.pathsep.join([own, *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, **handed_on(), **of_weights()}


def die_with_parent() -> None:
    """By the kernel's parent-death signal on Linux; elsewhere stdin closes."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the signal was asked for
        sys.exit(1)
