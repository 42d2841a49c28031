"""How much is said beside the result: --quiet, --verbose.  Errors are said always, and results are
not this file's affair."""

import os
from dataclasses import dataclass


@dataclass
class Verbosity:
    """Of this process; bench/cli.py sets it anew for each command line."""

    quiet: bool = False
    """No progress, no notes, no warnings."""
    verbose: bool = False
    """What the measuring process prints, every warning, and how long it took."""

    @property
    def debug(self) -> bool:
        return self.verbose or "LDT_BENCH_DEBUG" in os.environ


verbosity = Verbosity()
