"""Counts of the presets' points, which travel with the package, so that no card idles while a host
counts.

configs/counts/presets.json.gz holds them by the point's `subject`: whatever changes what is
executed changes the key.  They are of one state of the counting code and of the models, by a digest
of both, and those of public classes of one version of diffusers: where either is another, nothing
is known and the point is counted.  `python docs/make_counts.py` writes the file, and CI counts a
part of it again.
"""

import functools
import gzip
import hashlib
import json
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from bench.core.specs.point import Point
from bench.results.counts import StageCount
from models.spec import DiffusersDenoiser, DiffusersVAE

FILE = "counts/presets.json.gz"  # within configs/
WORK_FILE = "counts/work.json.gz"  # of whole videos, for forecasts: bench.count.work
ASKED_FOR = ("train_step", "trajectory")  # stages that are counted only where they are run


@dataclass(frozen=True)
class ShippedCount:
    """What measuring and predicting a point need of bench.count.point.ModelCount."""

    tokens: int
    params: dict[str, int]
    """denoiser, vae, text_encoder."""
    stages: dict[str, StageCount]


def counting_code() -> str:
    """Sixteen hex digits of the sources that a count depends on."""
    digest = hashlib.sha256()
    for package in ("bench.count", "models"):
        for file in sorted(Path(str(resources.files(package))).rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def diffusers_version() -> str | None:
    """None where it is not installed."""
    try:
        return metadata.version("diffusers")
    except metadata.PackageNotFoundError:
        return None


def shipped_count(point: Point) -> ShippedCount | None:
    """The point's counts as they were shipped; None where they are not known, or may be other ones
    by now."""
    document = shipped_document()
    entry = document["counts"].get(point.as_counted.subject)
    if entry is None or document["code"] != counting_code():
        return None
    public = isinstance(point.model.denoiser, DiffusersDenoiser) or isinstance(
        point.model.vae, DiffusersVAE
    )
    if public and document["diffusers"] != diffusers_version():
        return None
    wanted = [stage for stage in entry["stages"] if stage not in ASKED_FOR or stage in point.stages]
    if any(stage not in wanted for stage in point.stages):
        return None
    return ShippedCount(
        tokens=entry["tokens"],
        params=entry["params"],
        stages={
            stage: StageCount.model_validate(document["stages"][entry["stages"][stage]])
            for stage in wanted
        },
    )


@functools.cache
def shipped_document() -> dict[str, Any]:
    """The file as it is: code, diffusers, counts {subject: tokens, params, stages {name: index},
    seconds}, stages [...].  Empty where there is none."""
    file = resources.files("configs") / FILE
    try:
        return json.loads(gzip.decompress(file.read_bytes()))
    except (OSError, EOFError, ValueError):
        return {"code": None, "diffusers": None, "counts": {}, "stages": []}


@functools.cache
def shipped_work() -> dict[str, dict[str, int]]:
    """Counted work of whole videos by a fingerprint of what was counted (bench.count.cache); empty
    where it is of other counting code.  Products do not depend on diffusers' version, and a
    forecast is right to some per cent, so that it is used with any."""
    file = resources.files("configs") / WORK_FILE
    try:
        document = json.loads(gzip.decompress(file.read_bytes()))
    except (OSError, EOFError, ValueError):
        return {}
    return document["numbers"] if document["code"] == counting_code() else {}
