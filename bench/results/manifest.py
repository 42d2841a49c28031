"""The manifest of a result: a hash of each file that its figures rest on."""

import hashlib
import json
from pathlib import Path

from bench.core.errors import UserError
from bench.results.base import Strict
from bench.results.store import (
    CALIBRATION,
    RECORDS,
    SAMPLES,
    SUITE,
    disk_faults,
    read_bytes,
    write_whole,
)

MANIFEST = "manifest.json"
FILES = (RECORDS, SAMPLES, SUITE, CALIBRATION)


class Manifest(Strict):
    """manifest.json."""

    sha256: dict[str, str]
    """By file name, of the files that there were."""


def hashes(directory: Path) -> dict[str, str]:
    """By file name, of the files that there are."""
    there = [directory / name for name in FILES if (directory / name).is_file()]
    return {path.name: hashlib.sha256(read_bytes(path)).hexdigest() for path in there}


def write_manifest(directory: Path) -> None:
    """Over the one that was there: the last step of a run, a calibration or a merge."""
    with disk_faults(directory):
        text = Manifest(sha256=hashes(directory)).model_dump_json(indent=1)
        write_whole(directory / MANIFEST, text + "\n")


def read_manifest(directory: Path) -> Manifest | None:
    """None where there is none.  Raises UserError for one that cannot be read."""
    path = directory / MANIFEST
    if not path.is_file():
        return None
    try:
        return Manifest.model_validate(json.loads(read_bytes(path)))
    except ValueError as error:
        raise UserError(f"{path}: not a manifest: {str(error).splitlines()[0]}") from None
