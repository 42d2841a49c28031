"""The kinds of cases that are fuzzed: YAML, result directories, tables, options, requests."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis.strategies import SearchStrategy

from bench.core.specs.demand import Demand
from bench.core.specs.model import Model
from bench.core.specs.suite import Suite
from support.fuzz import commands, files, server


@dataclass(frozen=True)
class Kind:
    """Cases, and what is done with one of them in a folder of its own."""

    cases: SearchStrategy
    one: Callable[[Path, Any], None] | None = None
    begun: Callable[[Path], contextlib.AbstractContextManager] | None = None
    """Where something must stand before the first case: gives the function of a case."""

    def begin(self, folder: Path) -> contextlib.AbstractContextManager:
        """What takes a case."""
        if self.begun is not None:
            return self.begun(folder)
        return contextlib.nullcontext(partial(self.one, folder))


def _preset(kind: type, name: str) -> Kind:
    return Kind(files.REPLACED, partial(files.preset, kind, name))


KINDS = {
    "YAML text": Kind(files.YAML_TEXTS, files.yaml_text),
    "YAML model": _preset(Model, "tiny"),
    "YAML suite": _preset(Suite, "smoke"),
    "YAML demand": _preset(Demand, "uploads"),
    "result's point": Kind(files.STORED_POINTS, files.stored_point),
    "result directory": Kind(files.DIRECTORIES, files.directory),
    "table's cell": Kind(files.CELLS, files.cell),
    "table": Kind(files.TABLES, files.table),
    "option --set": Kind(commands.SETTINGS, commands.setting),
    "command line": Kind(commands.lines(), commands.line),
    "server request": Kind(server.REQUESTS, begun=server.served),
}
